"""Read TensorRT's engine inspector: which ONNX tensor each layer of an engine makes, and in which format.

TensorRT fuses operators and names the result after all of them (`conv1 + relu1`), or, where its compiler
Myelin took over, after none. A layer is traced back by the tensor it writes, for TensorRT keeps the ONNX
names of those it needs; failing that, by the ONNX nodes in its metadata or in its name: that
which comes last in the network made its output. Copies that change a layout are layers of their own.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from hwprune.errors import DeviceError
from hwprune.runtimes.base import KernelTime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = logging.getLogger(__name__)
LEAST_US = 0.01
_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_COPY = "Reformatting CopyNode"
_COPIES = re.compile(r"^Reformatted (?:Input|Output) Tensor \d+ (?:to|of) ")
_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# How the inspector words number formats: 10.x in one text with the layout, 11.x apart from it.
_FORMATS = (
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|(?<!b)float16", re.IGNORECASE)),
    ("int8", re.compile(r"u?int8", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float32|\bfloat\b", re.IGNORECASE)),
)
_FORMAT_KEYS = ("Format/Datatype", "Datatype", "Format")


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """One layer of an engine, as the inspector describes it.

    Attributes:
        name: Its name, by which the profiler reports it too.
        kind: TensorRT's type of layer.
        inputs: Names of the tensors it reads.
        outputs: Names of the tensors it makes.
        formats: Number formats of all of them that are known.
        nodes: ONNX nodes that its metadata names.
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    formats: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()

    @property
    def reformats(self) -> bool:
        """Whether it only changes a memory layout or a number format."""
        return self.kind.lower() in ("reformat", "cast") or self.name.startswith(_COPY)


def read_layers(report: str) -> list[EngineLayer]:
    """Layers in execution order, from the inspector's JSON.

    Raises:
        DeviceError: It is not what TensorRT 10 and 11 write.
    """
    try:
        return [_layer(entry) for entry in json.loads(report)["Layers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DeviceError(
            "TensorRT describes its engine in a way that hwprune does not know.",
            got=f"{type(error).__name__}: {error}",
            do="use a TensorRT of 10.8 up to 11, and report its version",
        ) from error


def _layer(entry: Any) -> EngineLayer:
    if isinstance(entry, str):  # an engine built with names only
        return EngineLayer(entry, "")
    tensors = [*entry.get("Inputs", ()), *entry.get("Outputs", ())]
    return EngineLayer(
        name=entry["Name"],
        kind=entry.get("LayerType", ""),
        inputs=tuple(tensor["Name"] for tensor in entry.get("Inputs", ())),
        outputs=tuple(tensor["Name"] for tensor in entry.get("Outputs", ())),
        formats=frozenset(filter(None, map(_number_format, tensors))),
        nodes=tuple(_ONNX_NODE.findall(entry.get("Metadata") or "")),
    )


def _number_format(tensor: Mapping[str, Any]) -> str | None:
    for text in (str(tensor.get(key, "")) for key in _FORMAT_KEYS):
        if found := next((name for name, words in _FORMATS if words.search(text)), None):
            return found
    return None


class OnnxNames:
    """Names of the network that was given to TensorRT.

    Attributes:
        tensors: All feature maps.
        outputs: Name of a node -> the tensor it makes.
        makers: Tensor -> the operator that makes it.
    """

    def __init__(self, content: bytes) -> None:
        graph = onnx.load_model_from_string(content).graph
        self.outputs: dict[str, str] = {node.name: node.output[0] for node in graph.node if node.name}
        self._places = {name: place for place, name in enumerate(self.outputs)}  # in execution order
        self.makers: dict[str, str] = {name: node.op_type for node in graph.node for name in node.output}
        self.tensors = {*self.makers, *(entry.name for entry in graph.input)}

    def tensor_of(self, layer: EngineLayer) -> str | None:
        """The tensor that a layer makes or, when it reformats, changes; None when nothing tells."""
        names = [*layer.outputs, *(layer.inputs if layer.reformats else ())]
        names += [_COPIES.sub("", name) for name in names]
        if (found := next((name for name in names if name in self.tensors), None)) is not None:
            return found
        made = [name for name in self._nodes(layer) if name in self.outputs]
        return self.outputs[max(made, key=self._places.__getitem__)] if made else None

    def _nodes(self, layer: EngineLayer) -> list[str]:
        """ONNX nodes that a layer names, in no order that could be relied on."""
        if layer.reformats:
            return []
        return [*layer.name.split(" + "), *layer.nodes]

    def has_weights(self, layer: EngineLayer) -> bool:
        """Whether a layer executes an operator with weights; a copy of what one made does not."""
        if layer.reformats:
            return False
        made = [*layer.outputs, *(self.outputs.get(name, "") for name in self._nodes(layer))]
        return any(self.makers.get(tensor) in _WEIGHTED for tensor in made)


def check_precision(layers: Sequence[EngineLayer], names: OnnxNames, precision: str) -> None:
    """Refuse an engine whose layers with weights do not compute in the format that was asked for.

    In int8 some may stay in 32 bits, fewer than half of them, and a warning names those. Where the inspector
    tells no number format that is known, nothing can be refused, and a warning says so.

    Raises:
        DeviceError: The engine came out in another format; says which layers.
    """
    found = {layer.name: layer.formats for layer in layers if names.has_weights(layer) and layer.formats}
    wrong = [name for name, formats in found.items() if precision not in formats]
    if precision == "int8" and 2 * len(wrong) < len(found):
        if wrong:
            _log.warning("%d of %d layers do not compute in int8: %s", len(wrong), len(found), _some(wrong))
        wrong = []
    if not found:
        _log.warning("TensorRT does not tell number formats: %s could not be verified", precision)
    if wrong:
        formats = sorted({name for layer in wrong for name in found[layer]})
        raise DeviceError(
            f"The engine does not compute in {precision}.",
            where=_some(wrong),
            got=", ".join(formats),
            do="TensorRT takes its number formats from the ONNX: give the network in 32-bit floats, which "
            "hwprune converts, or choose the profile of its format: --profile cuda-trt-fp32, -fp16 or -int8",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more layers" if len(names) > 3 else "")


def kernel_times(
    layers: Sequence[EngineLayer], names: OnnxNames, reports: Sequence[Sequence[tuple[str, float]]]
) -> list[KernelTime]:
    """One kernel per layer that the profiler reported, in execution order.

    Args:
        layers: From the inspector.
        names: Of the network.
        reports: Of each run, layers and their milliseconds in execution order; names may occur twice.

    Raises:
        DeviceError: Runs differ in their layers, or a name occurs more often in one place than in the other.
    """
    reported = [name for name, _ in reports[0]]
    known: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        known.setdefault(layer.name, []).append(layer)
    counts = Counter(reported)
    apart = [name for name in counts if name in known and counts[name] != len(known[name])]
    if apart or any([name for name, _ in report] != reported for report in reports):
        raise DeviceError(
            "TensorRT's profiler and its inspector disagree on the layers of the engine.",
            where=_some(apart) or "reports of several runs",
            do="report the version of TensorRT; meanwhile use another runtime with --profile",
        )
    nth = {name: iter(found) for name, found in known.items()}
    ordered = [next(nth[name]) if name in nth else EngineLayer(name, "unknown") for name in reported]
    times_us = 1e3 * np.array([[ms for _, ms in report] for report in reports])  # (runs, layers)
    return [_kernel(layer, names, times_us[:, place]) for place, layer in enumerate(ordered)]


def _kernel(layer: EngineLayer, names: OnnxNames, times_us: Any) -> KernelTime:
    low, middle, high = np.percentile(times_us, (25, 50, 75))
    return KernelTime(
        tensor=names.tensor_of(layer),
        op=layer.kind or "layer",
        reorder=layer.reformats,
        time_us=max(float(middle), LEAST_US),
        spread_us=float(high - low) / 2,
        runs=len(times_us),
    )
