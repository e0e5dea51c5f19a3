"""Small networks with hand-made search spaces, and a pretended device to profile them on."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprune.latency.profiler import profile_space
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.runtimes.probes import conv_chain, model_bytes
from hwprune.structure.layers import ChannelGroup, ChannelMap, Layer, Product, Run, Tensor
from hwprune.structure.space import SearchSpace, make_choices

RATIOS = tuple(i / 10 for i in range(1, 11))
FAKE = TargetProfile(name="fake", runtime="fake")


def conv_layer(name: str, inputs: ChannelMap, outputs: ChannelMap) -> Layer:
    axes = tuple((axis, where) for axis, where in ((0, outputs), (1, inputs)) if where.groups)
    weight = Tensor(f"{name}.weight", (outputs.size, inputs.size, 3, 3), axes)
    return Layer(name, "conv", inputs, outputs, (weight,))


def space_of(name: str, image: tuple[int, ...], groups, layers) -> SearchSpace:
    """All layers are 3x3 convolutions that keep the image's size."""
    area = 9 * image[2] * image[3]
    products = tuple(Product(layer.name, layer.outputs, layer.inputs, area) for layer in layers)
    return SearchSpace(name, image, tuple(groups), tuple(layers), products=products)


def group(name: str, width: int, multiple: int = 1) -> ChannelGroup:
    return ChannelGroup(name, width, 1, make_choices(width, 1, multiple, RATIOS))


def chain_net(widths=(3, 48, 64, 80, 96, 10), size=8, multiple=1) -> tuple[bytes, SearchSpace]:
    """conv0 .. convN in a row; all widths but the first and the last are groups."""
    maps = [ChannelMap.frozen(widths[0])]
    maps += [ChannelMap((Run(index, 0, width),)) for index, width in enumerate(widths[1:-1])]
    maps += [ChannelMap.frozen(widths[-1])]
    layers = [conv_layer(f"conv{i}", maps[i], maps[i + 1]) for i in range(len(widths) - 1)]
    groups = [group(f"conv{i}", width, multiple) for i, width in enumerate(widths[1:-1])]
    space = space_of("chain", (1, widths[0], size, size), groups, layers)
    return conv_chain(widths, size=size), space


def concat_net() -> tuple[bytes, SearchSpace]:
    """Three convolutions of the input, concatenated, then one more: its input follows three groups."""
    widths, size, rng = (12, 20, 28), 6, np.random.default_rng(0)
    maps = [ChannelMap((Run(index, 0, width),)) for index, width in enumerate(widths)]
    joined = ChannelMap(tuple(run for where in maps for run in where.runs))
    last = ChannelMap((Run(3, 0, 16),))
    layers = [conv_layer(f"c{i}", ChannelMap.frozen(3), where) for i, where in enumerate(maps)]
    layers += [conv_layer("head", joined, last), conv_layer("tail", last, ChannelMap.frozen(5))]

    def conv(name, source, out):
        names = [source, f"{name}.weight"]
        return helper.make_node("Conv", names, [out], name=name, kernel_shape=[3, 3], pads=[1] * 4)

    nodes = [
        *(conv(f"c{i}", "input", f"o{i}") for i in range(3)),
        helper.make_node("Concat", ["o0", "o1", "o2"], ["cat"], name="cat", axis=1),
        conv("head", "cat", "mid"),
        helper.make_node("Relu", ["mid"], ["act"], name="act"),
        conv("tail", "act", "output"),
    ]
    tensors = [layer.tensors[0] for layer in layers]
    weights = [
        numpy_helper.from_array(rng.standard_normal(t.shape, dtype=np.float32), t.name) for t in tensors
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, size, size])
        for name, count in (("input", 3), ("output", 5))
    ]
    content = model_bytes(helper.make_graph(nodes, "concat", ends[:1], ends[1:], weights))
    groups = [group(f"g{i}", width) for i, width in enumerate((*widths, 16))]
    return content, space_of("concat", (1, 3, size, size), groups, layers)


@pytest.fixture(scope="session")
def chain():
    return chain_net()


@pytest.fixture(scope="session")
def quiet_table(chain, tmp_path_factory):
    """The table of the chain on a quiet pretended device with blocks of 16 channels."""
    content, space = chain
    folder = tmp_path_factory.mktemp("table")
    runtime = FakeRuntime(FakeDevice(step=16))
    return profile_space(space, content, FAKE, runtime, folder=folder, max_error=1e-9, max_networks=64)


@pytest.fixture(scope="session")
def fake_profile():
    return FAKE


@pytest.fixture(scope="session", name="concat_net")
def _concat_net():
    return concat_net()


@pytest.fixture(scope="session")
def net_of():
    """Makes a chain of convolutions of given widths."""
    return chain_net


@pytest.fixture(scope="session", name="chain_net")
def _chain_net():
    return chain_net()
