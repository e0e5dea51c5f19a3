"""The JSON form of a `SearchSpace`. A file is untrusted: every index and size in it is checked on reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.errors import ArtifactError
from hwprune.structure.layers import (
    FROZEN,
    Attribute,
    Block,
    ChannelGroup,
    ChannelMap,
    Layer,
    Product,
    Run,
    Tensor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KIND, SCHEMA_VERSION = "search-space", 2
_MOST_CHANNELS = 2**24  # of one run: files are not trusted
OPS = ("conv", "deconv", "linear", "norm", "parameter")


def write(path: Path, fields: Mapping[str, Any]) -> None:
    """Write the fields of a space as JSON, atomically."""
    artifacts.write_json(path, KIND, SCHEMA_VERSION, to_payload(fields))


def read(path: Path, made_by: str = "hwprune profile") -> dict[str, Any]:
    """Read and check the fields of a space.

    Raises:
        ArtifactError: Missing, damaged, inconsistent, or written by another schema version.
    """
    payload = artifacts.read_json(path, KIND, SCHEMA_VERSION, made_by)
    try:
        return from_payload(payload)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(
            "The search space in this file is not consistent.",
            where=path,
            got=f"{type(error).__name__}: {error}",
            do=f"make it again with `{made_by}`",
        ) from error


def to_payload(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a space as JSON-able data."""
    return {
        "model": fields["model"],
        "input_shape": list(fields["input_shape"]),
        "groups": [[g.name, g.width, g.multiple, list(g.choices)] for g in fields["groups"]],
        "layers": [_layer_payload(layer) for layer in fields["layers"]],
        "frozen": dict(fields["frozen"]),
        "products": [
            [one.layer, _map_payload(one.outputs), _map_payload(one.reads), one.positions]
            for one in fields["products"]
        ],
        "attributes": [
            [one.module, one.name, one.index, _map_payload(one.size)] for one in fields["attributes"]
        ],
        "blocks": [
            [b.name, b.input, b.output, list(b.layers), list(b.products), list(b.groups), list(b.reads)]
            for b in fields["blocks"]
        ],
        "kept": dict(fields["kept"]),
    }


def from_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The fields that `to_payload` described, checked.

    Raises:
        KeyError, TypeError, ValueError, IndexError, AttributeError: They are not consistent.
    """
    groups = tuple(_group(*entry) for entry in payload["groups"])
    return {
        "model": str(payload["model"]),
        "input_shape": _sizes(payload["input_shape"]),
        "groups": groups,
        "layers": tuple(_layer(entry, groups) for entry in payload["layers"]),
        "frozen": {str(name): str(reason) for name, reason in payload["frozen"].items()},
        "products": tuple(_product(groups, *entry) for entry in payload["products"]),
        "attributes": tuple(_attribute(groups, *entry) for entry in payload["attributes"]),
        "blocks": tuple(_block(payload, groups, *entry) for entry in payload.get("blocks", ())),
        "kept": {str(name): str(reason) for name, reason in payload.get("kept", {}).items()},
    }


def _map_payload(channels: ChannelMap) -> list[list[int]]:
    return [[run.group, run.start, run.length, run.repeat, run.step] for run in channels.runs]


def _layer_payload(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "inputs": _map_payload(layer.inputs),
        "outputs": _map_payload(layer.outputs),
        "tensors": [
            [t.name, list(t.shape), [[axis, _map_payload(channels)] for axis, channels in t.axes], t.buffer]
            for t in layer.tensors
        ],
    }


def _whole(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**40:
        raise ValueError(f"{value!r} is not a whole number of at least {least}")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(_whole(value) for value in values)


def _group(name: str, width: int, multiple: int, choices: list[int]) -> ChannelGroup:
    allowed = _sizes(choices)
    if not allowed or list(allowed) != sorted(set(allowed)) or allowed[-1] != width:
        raise ValueError(f"choices of group {name} must ascend to its width")
    if any(choice % _whole(multiple) for choice in allowed[:-1]):
        raise ValueError(f"choices of group {name} are not multiples of {multiple}")
    return ChannelGroup(str(name), _whole(width), multiple, allowed)


def _map(entries: Any, groups: tuple[ChannelGroup, ...]) -> ChannelMap:
    runs = []
    for group, start, length, repeat, step in entries:
        run = Run(_whole(group, FROZEN), _whole(start, 0), _whole(length), _whole(repeat), _whole(step))
        if run.group != FROZEN and run.start + (run.length - 1) * run.step >= groups[run.group].width:
            raise ValueError(f"a channel run leaves group {groups[run.group].name}")
        if run.length * run.repeat > _MOST_CHANNELS:
            raise ValueError(f"a channel run of {run.length * run.repeat} channels")
        runs.append(run)
    return ChannelMap(tuple(runs))


def _tensor(groups: tuple[ChannelGroup, ...], name: str, shape: Any, axes: Any, buffer: bool) -> Tensor:
    sizes = _sizes(shape)
    maps = tuple((_whole(axis, 0), _map(entries, groups)) for axis, entries in axes)
    if any(sizes[axis] != channels.size for axis, channels in maps):
        raise ValueError(f"the channel maps of {name} do not fit its shape")
    return Tensor(str(name), sizes, maps, bool(buffer))


def _layer(entry: dict[str, Any], groups: tuple[ChannelGroup, ...]) -> Layer:
    if entry["op"] not in OPS:
        raise ValueError(f"{entry['op']!r} is not a layer kind")
    return Layer(
        name=str(entry["name"]),
        op=entry["op"],
        inputs=_map(entry["inputs"], groups),
        outputs=_map(entry["outputs"], groups),
        tensors=tuple(_tensor(groups, *tensor) for tensor in entry["tensors"]),
    )


def _product(
    groups: tuple[ChannelGroup, ...], layer: str, outputs: Any, reads: Any, positions: int
) -> Product:
    return Product(str(layer), _map(outputs, groups), _map(reads, groups), _whole(positions))


def _attribute(groups: tuple[ChannelGroup, ...], module: str, name: str, index: int, size: Any) -> Attribute:
    if not str(name).isidentifier() or str(name).startswith("__"):
        raise ValueError(f"{name!r} is not an attribute")
    return Attribute(str(module), str(name), _whole(index, -1), _map(size, groups))


def _block(
    payload: Any,
    groups: tuple[ChannelGroup, ...],
    name: str,
    entering: str,
    leaving: str,
    layers: Any,
    products: Any,
    own: Any = (),
    reads: Any = (),
) -> Block:
    inside, indices = tuple(map(str, layers)), tuple(_whole(index, 0) for index in products)
    mine = tuple(_whole(index, 0) for index in own)
    if not {entry["name"] for entry in payload["layers"]}.issuperset(inside):
        raise ValueError(f"block {name} has layers that are not there")
    if any(index >= len(payload["products"]) for index in indices):
        raise ValueError(f"block {name} has products that are not there")
    if any(index >= len(groups) for index in mine):
        raise ValueError(f"block {name} has channel groups that are not there")
    return Block(str(name), str(entering), str(leaving), inside, indices, mine, tuple(map(str, reads)))
