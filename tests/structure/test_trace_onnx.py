"""ONNX files as models: traced, proved and sliced without torch, whoever exported them."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import hwprune
from hwprune.errors import ModelError
from hwprune.runtimes.probes import conv_chain

pytestmark = pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")


def exported(model: nn.Module, shape: tuple[int, ...], opset: int = 17) -> bytes:
    """As anybody exports: batch norm folded, weights with whatever names come out."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.zeros(shape),), buffer, opset_version=opset, dynamo=False)
    return buffer.getvalue()


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


class Block(nn.Module):
    """Residual, concat with the image, squeeze-and-excitation by views, flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.down, self.up = nn.Linear(16, 4), nn.Linear(4, 16)
        self.join, self.head = nn.Conv2d(19, 8, 1), nn.Linear(8 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = y + self.body(y)
        n, c = y.shape[:2]
        y = y * self.up(self.down(y.mean((2, 3))).relu()).sigmoid().view(n, c, 1, 1)
        return self.head(nn.functional.adaptive_avg_pool2d(self.join(torch.cat([x, y], 1)), 2).flatten(1))


@pytest.mark.parametrize("opset", [11, 17])
def test_a_file_is_pruned_as_its_model_is(opset: int) -> None:
    torch.manual_seed(0)
    content = exported(Block(), (1, 3, 8, 8), opset)
    space = hwprune.trace_onnx(content)
    assert sorted(group.width for group in space.groups) == [4, 8, 16]
    assert space.proof.proved
    base = hwprune.prepare_onnx(content)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        run(hwprune.slice_onnx(base, space, space.full()), x), run(content, x), atol=1e-5
    )
    assert run(hwprune.slice_onnx(base, space, space.smallest()), x).shape == (1, 5)


@pytest.mark.parametrize(
    ("conv", "norm", "size"), [(nn.Conv1d, nn.BatchNorm1d, 1), (nn.Conv3d, nn.BatchNorm3d, 3)]
)
def test_norms_are_folded_into_convolutions_of_any_dimension(conv: type, norm: type, size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(8, 8, 3), norm(8), nn.ReLU(), conv(8, 5, 1)).eval()
    model[1].running_var.uniform_(0.5, 2.0)
    content = exported(model, (1, 8, *[6] * size))
    space = hwprune.trace_onnx(content)
    x = np.random.default_rng(0).standard_normal((1, 8, *[6] * size)).astype(np.float32)
    sliced = hwprune.slice_onnx(hwprune.prepare_onnx(content), space, space.full())
    np.testing.assert_allclose(run(sliced, x), run(content, x), atol=1e-5)
    assert [group.width for group in hwprune.trace(model, torch.from_numpy(x)).groups] == [8]


def test_sizes_in_the_graph_bind_nobody() -> None:
    """A split at constants: in torch it would be the code's, here it is the graph's."""
    rng = np.random.default_rng(0)
    weights = {"a": (12, 3, 1, 1), "b": (6, 4, 1, 1), "c": (6, 8, 1, 1), "d": (2, 6, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"]),
        helper.make_node("Split", ["y", "sizes"], ["left", "right"], axis=1),
        helper.make_node("Conv", ["left", "b"], ["l"]),
        helper.make_node("Conv", ["right", "c"], ["r"]),
        helper.make_node("Add", ["l", "r"], ["s"]),
        helper.make_node("Conv", ["s", "d"], ["out"]),
    ]
    arrays = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()
    ]
    arrays.append(numpy_helper.from_array(np.array([4, 8]), "sizes"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 4, 4])
        for name, size in (("x", 3), ("out", 2))
    ]
    graph = helper.make_graph(nodes, "split", ends[:1], ends[1:], arrays)
    content = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    space = hwprune.trace_onnx(content)
    assert sorted(group.width for group in space.groups) == [4, 6, 8]
    sliced = onnx.load_model_from_string(
        hwprune.slice_onnx(hwprune.prepare_onnx(content), space, space.smallest())
    )
    assert sum(int(np.prod(tensor.dims)) for tensor in sliced.graph.initializer) < 20


def folding(*folded: int) -> bytes:
    """Eight channels that are compared with each other in another shape, after twelve that are not."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["wide"]),
        helper.make_node("Conv", ["wide", "b"], ["maps"]),
        helper.make_node("Reshape", ["maps", "folded"], ["rows"]),
        helper.make_node("Softmax", ["rows"], ["shares"], axis=1),
        helper.make_node("Reshape", ["shares", "unfolded"], ["out"]),
    ]
    weights = {"a": (12, 3, 1, 1), "b": (8, 12, 1, 1)}
    arrays = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()
    ]
    sizes = {"folded": folded, "unfolded": (-1, 8, 4, 4)}
    arrays += [numpy_helper.from_array(np.array(size), name) for name, size in sizes.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, 4, 4])
        for name, size in (("x", 3), ("out", 8))
    ]
    graph = helper.make_graph(nodes, "folding", ends[:1], ends[1:], arrays)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def test_a_batch_that_is_folded_into_channels_cannot_be_another() -> None:
    content = folding(1, -1, 4, 4)
    space, base = hwprune.trace_onnx(content), hwprune.prepare_onnx(content)
    assert [group.width for group in space.groups] == [12]
    with pytest.raises(ModelError, match="folds the batch into channels") as caught:
        hwprune.slice_onnx(base, space, space.smallest(), batch=3)
    assert "batch 3" in str(caught.value.got)
    x = np.ones((1, 3, 4, 4), np.float32)
    assert run(hwprune.slice_onnx(base, space, space.smallest(), batch=1), x).shape == (1, 8, 4, 4)


@pytest.mark.parametrize("folded", [(-1, 8, 4, 4), (0, -1, 4, 4)])
def test_a_shape_that_leaves_the_batch_alone_takes_any(folded: tuple[int, ...]) -> None:
    content = folding(*folded)
    space, base = hwprune.trace_onnx(content), hwprune.prepare_onnx(content)
    x = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32)
    three = run(hwprune.slice_onnx(base, space, space.smallest(), batch=3), x)
    one = run(hwprune.slice_onnx(base, space, space.smallest()), x[1:2])
    np.testing.assert_allclose(three[1:2], one, atol=1e-5)


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(conv_chain((3, 16, 8)))
    code = "import hwprune, sys; hwprune.trace_onnx('net.onnx'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


@pytest.mark.parametrize("content", [b"", b"garbage" * 20, conv_chain((3, 8))])
def test_what_is_no_model_or_has_nothing_to_prune_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError):
        hwprune.trace_onnx(content)


def test_an_empty_file_is_not_called_old() -> None:
    with pytest.raises(ModelError, match="no network"):
        hwprune.trace_onnx(b"")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such ONNX file"):
        hwprune.trace_onnx(tmp_path / "nothing.onnx")
