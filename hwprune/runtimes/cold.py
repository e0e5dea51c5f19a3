"""Rotating buffers: copies of a network that take turns, so that none finds itself in the GPU's cache."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx as onnx_library

from hwprune.cudadriver import driver_facts

if TYPE_CHECKING:
    from hwprune.runtimes.base import TargetProfile

BUFFERS = ("hot", "rotating")  # values of the option `buffers`; the first is the default
_MOST_COPIES = 64
_LARGEST_CACHE_BYTES = 128 * 2**20  # of any GPU of today, taken where the driver does not tell


def copies(onnx: bytes, profile: TargetProfile) -> int:
    """Copies of a network that take turns under a profile; 1 with `hot` buffers.

    Args:
        onnx: The network as it is compiled, static shapes.
        profile: The conditions.
    """
    if profile.options.get("buffers") != "rotating":
        return 1
    facts = driver_facts(profile.gpu_index)
    cache_bytes = facts.cache_bytes if facts else 0
    return replicas(network_bytes(onnx), cache_bytes or _LARGEST_CACHE_BYTES)


def replicas(network_bytes: int, cache_bytes: int) -> int:
    """Copies of a network that take turns, so that none finds itself in the cache any more."""
    return min(max(2, math.ceil(2 * cache_bytes / max(network_bytes, 1))), _MOST_COPIES)


def network_bytes(onnx: bytes) -> int:
    """Size of a network's weights and of its inputs in 32 bits."""
    graph = onnx_library.load_model_from_string(onnx).graph
    shapes = ([dim.dim_value for dim in entry.type.tensor_type.shape.dim] for entry in graph.input)
    return sum(int(tensor.ByteSize()) for tensor in graph.initializer) + sum(
        4 * int(math.prod(shape)) for shape in shapes
    )
