"""One operator of an ONNX graph as its rule sees it. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from hwprune.structure.code_place import code_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass
class Node:
    """One operator as its rule sees it.

    Attributes:
        operator: Its type, with its domain in front unless that is ONNX's own.
        name: Its name, or that of its first output.
        inputs: Names of its inputs; "" where one is left out.
        outputs: Names of its outputs.
        attributes: Its attributes as Python values.
        output_shapes: Shape of each output.
        values: Constants among its inputs.
        following: For constants that were computed from shapes: where they follow the sizes of channels.
        code: Where the model's code calls it, `models/resnet.py:148`; "" where that is not known.
        equal_parts: Whether a grouped convolution loses equally many channels of each conv group.
        remark: Why its channels are frozen, where its rule has something special to say.
        open: Whether the export tells what follows sizes.
        fresh: Axis of its first output -> a factor of new labels for that axis.
        parts: For a Slice: axis -> the slices that together are the whole of that axis of its input.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    output_shapes: tuple[tuple[int, ...], ...] = ()
    values: dict[str, Array] = field(default_factory=dict)
    following: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    code: str = ""
    equal_parts: bool = False
    remark: str = ""
    open: bool = True
    fresh: Callable[[int], NDArray[np.int64]] = field(default=lambda axis: np.zeros(0, dtype=np.int64))
    parts: dict[int, list[slice]] = field(default_factory=dict)

    @property
    def scope(self) -> str:
        """The module that it is in, as exporters write it: `layer1/layer1.0/conv1` of `/layer1/.../Conv`."""
        return self.name.strip("/").rpartition("/")[0]

    @property
    def place(self) -> str:
        """The operator and where it is, for messages."""
        scope = self.scope or self.name
        return f"{self.operator} in {scope}" if scope else self.operator

    def because(self, reason: str) -> str:
        """A reason that begins with the operator and ends with where the code calls it."""
        return f"{self.place} {reason}" + (f" ({self.code})" if self.code else "")

    @property
    def conv_groups(self) -> int:
        """The number of groups of a convolution; 1 for other operators."""
        return int(self.attributes.get("group", 1))

    def value(self, position: int) -> Array | None:
        """An input that is a constant, or None."""
        return self.values.get(self.inputs[position]) if position < len(self.inputs) else None

    def ints(self, attribute: str, position: int) -> list[int] | None:
        """Integers that are an attribute in old operator sets and an input in new ones."""
        if attribute in self.attributes:
            found = self.attributes[attribute]
            return list(found) if isinstance(found, list | tuple) else [int(found)]
        value = self.value(position)
        return None if value is None else [int(number) for number in np.ravel(value)]

    def follows(self, axis: int | None, place: int = 1) -> bool:
        """Whether the size that a constant gives to an axis follows the channels: it is computed, or -1.

        Args:
            axis: The axis; None asks whether any number of the constant is computed.
            place: Which input the constant is.
        """
        name = self.inputs[place] if place < len(self.inputs) else ""
        flags, value = self.following.get(name), self.values.get(name)
        if axis is None:
            return flags is not None and bool(flags.any())
        if value is None or not 0 <= axis < len(value):
            return False
        return bool(value[axis] == -1 or (flags is not None and flags[axis]))

    def slices(self) -> dict[int, slice] | None:
        """Axis -> its part, of a Slice with known bounds."""
        starts, ends = self.ints("starts", 1), self.ints("ends", 2)
        if starts is None or ends is None:
            return None
        axes = self.ints("axes", 3) or list(range(len(starts)))
        steps = self.ints("steps", 4) or [1] * len(starts)
        ndim = len(self.output_shapes[0])
        found = {}
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            last = None if step < 0 and end < -(2**30) else end
            found[axis % ndim] = slice(start, last, step)
        return found

    def pads(self, ndim: int) -> list[tuple[int, int]] | None:
        """How many positions a Pad adds before and after each axis of a tensor of `ndim` axes."""
        amounts, axes = self.ints("pads", 1), self.ints("axes", 3)
        if amounts is None:
            return None
        half = len(amounts) // 2
        found = [(0, 0)] * ndim
        for place, axis in enumerate(axes if axes is not None else range(ndim)):
            found[axis % ndim] = (amounts[place], amounts[half + place])
        return found


def node_of(proto: Any) -> Node:
    """A NodeProto as a `Node`, without shapes and values."""
    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    name = proto.name or (proto.output[0] if proto.output else proto.op_type)
    outputs = tuple(name for name in proto.output if name)
    operator, code = f"{domain}{proto.op_type}", code_place(proto)
    return Node(operator, name, tuple(proto.input), outputs, attributes, code=code)
