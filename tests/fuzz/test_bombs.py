"""Small files that ask for much memory are refused in little of it: each in a process that has no more."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hwprune.errors import ModelError
from hwprune.verbs.bench_inputs import find_model

LIMIT_MB = 700  # beyond what the imported libraries take

# Reads a file under a limit of memory; prints the documented error.
READ = """
import resource, sys
from pathlib import Path
import hwprune.artifacts, safetensors.torch, torch
from hwprune.verbs.bench_inputs import find_model
from hwprune.data.datasets import open_data
from hwprune.errors import HwpruneError
from hwprune.latency.plan import Plan
from hwprune.models.weights import load_weights
from hwprune.structure.onnx_graph import read_graph, without_weights
import pyarrow.parquet

kind, path, more_mb = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
read = {
    "json": lambda: hwprune.artifacts.read_json(path, "kind", 1),
    "tensors": lambda: hwprune.artifacts.read_tensors(path, "kind", 1),
    "plan": lambda: Plan.load(path),
    "weights": lambda: load_weights(torch.nn.Linear(1, 1), path),
    "bench": lambda: find_model(path),
    "onnx": lambda: (read_graph(path.read_bytes()), without_weights(path.read_bytes())),
    "images": lambda: open_data(f"imagefolder:{path}"),
    "parquet": lambda: open_data(f"parquet:{path}"),
}[kind]
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + more_mb * 2**20,) * 2)
try:
    read()
except HwpruneError as error:
    print(type(error).__name__, error)
"""


def refused(kind: str, path: Path) -> str:
    """What the documented error says."""
    done = subprocess.run(
        [sys.executable, "-c", READ, kind, str(path), str(LIMIT_MB)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={"PATH": "", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout, "it was read"
    return done.stdout


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG that says it has this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.slow
def test_a_deflated_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(4)}, tmp_path / "small.pt")
    with (
        zipfile.ZipFile(tmp_path / "small.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in source.namelist():
            bomb.writestr(name, source.read(name))
        bomb.writestr("bomb/data/9", bytes(2**30))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**22
    assert "compressed" in refused("weights", tmp_path / "bomb.pt")


@pytest.mark.slow
def test_a_parquet_file_of_one_image_many_times_is_refused(tmp_path: Path) -> None:
    rows, image = 3_000, bytes(100_000)  # 300 MB, which a dictionary keeps in 100 kB
    indices = pa.array(np.zeros(rows, dtype=np.int32))
    encoded = pa.StructArray.from_arrays(
        [pa.DictionaryArray.from_arrays(indices, pa.array([image], pa.binary()))], ["bytes"]
    )
    labels = pa.array(np.arange(rows) % 2)
    pq.write_table(
        pa.table({"image": encoded, "label": labels}), tmp_path / "train.parquet", store_schema=False
    )
    assert (tmp_path / "train.parquet").stat().st_size < 2**22
    assert "exhaust the memory" in refused("parquet", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (1, 2**31 - 1)])
def test_an_image_of_a_huge_declared_size_is_refused(tmp_path: Path, width: int, height: int) -> None:
    for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(width, height, bytes(9)))
    assert "DataError" in refused("images", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2**63, 2**62, 2**40, 2**31])
def test_a_safetensors_header_of_a_huge_declared_size_is_refused(tmp_path: Path, size: int) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    for name, content in (
        ("length", size.to_bytes(8, "little") + header),
        ("tensor", len(header).to_bytes(8, "little") + header),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        assert "damaged" in refused("tensors", path)


@pytest.mark.slow
def test_json_that_is_nested_a_million_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in (
        "[" * 10**6,
        '{"a":' * 10**6,
        '{"kind":"kind","schema_version":1,"payload":{"a":' + "[" * 900,
    ):
        path.write_text(text)
        assert "damaged" in refused("json", path)


@pytest.mark.slow
def test_a_plan_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.hwplan", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("header.json", bytes(2**30))
        bomb.writestr("base.onnx", b"")
    assert "compressed" in refused("plan", tmp_path / "p.hwplan")


@pytest.mark.slow
def test_onnx_sizes_beyond_its_values_are_refused_where_values_are_read(tmp_path: Path) -> None:
    from hwprune.runtimes.probes import conv_chain
    from hwprune.structure.onnx_slice import OnnxSlicer
    from hwprune.structure.space import SearchSpace

    model = onnx.load_model_from_string(conv_chain((3, 8, 4), size=4))
    model.graph.initializer[0].dims[0] = 2**50
    space = SearchSpace("x", (1, 3, 4, 4), (), ())
    with pytest.raises(ModelError, match="not consistent"):
        OnnxSlicer(model.SerializeToString(), space)


HUGE = [2**20, 2**20]
_INT64, _FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT


def grown(op: str, *, declared: list[int], between: bool) -> onnx.GraphProto:
    """A graph that makes a huge tensor of a small one, as its output or on the way to it."""
    inputs = ["shape"] if op == "ConstantOfShape" else ["x", "shape"]
    nodes = [onnx.helper.make_node(op, inputs, ["huge"])]
    if between:
        nodes.append(onnx.helper.make_node("ReduceMax", ["huge"], ["y"], keepdims=0))
    shape = onnx.helper.make_tensor("shape", _INT64, [2], HUGE)
    told = [onnx.helper.make_tensor_value_info("huge", _FLOAT, declared)]
    output = onnx.helper.make_tensor_value_info("y", _FLOAT, []) if between else told[0]
    x = onnx.helper.make_tensor_value_info("x", _FLOAT, [1, 1])
    return onnx.helper.make_graph(nodes, "g", [x], [output], [shape], value_info=told if between else [])


def declared_output() -> onnx.GraphProto:
    """A graph that says of its small output that it is huge."""
    x, y = (
        onnx.helper.make_tensor_value_info(name, _FLOAT, sizes) for name, sizes in (("x", [1]), ("y", HUGE))
    )
    return onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])


def branch() -> onnx.GraphProto:
    """A graph with the huge tensor inside a branch."""
    inner = grown("ConstantOfShape", declared=[1, 1], between=True)
    del inner.input[:]
    yes = onnx.helper.make_tensor("yes", onnx.TensorProto.BOOL, [], [True])
    node = onnx.helper.make_node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)
    x, z = (onnx.helper.make_tensor_value_info(name, _FLOAT, []) for name in ("x", "z"))
    return onnx.helper.make_graph([node], "g", [x], [z], [yes])


def sparse() -> onnx.GraphProto:
    """A graph with one weight, of which one number of very many is not zero."""
    values = onnx.helper.make_tensor("w", _FLOAT, [1], [1.0])
    weight = onnx.helper.make_sparse_tensor(values, onnx.helper.make_tensor("", _INT64, [1], [0]), HUGE)
    graph = declared_output()
    graph.node[0].input[0] = "w"
    graph.output[0].type.tensor_type.ClearField("shape")
    graph.sparse_initializer.append(weight)
    return graph


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[onnx.GraphProto], Path]:
    """Writes a graph as a model."""

    def save(graph: onnx.GraphProto) -> Path:
        path = tmp_path / "m.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
        return path

    return save


@pytest.mark.parametrize("op", ["Expand", "ConstantOfShape", "Tile"])
@pytest.mark.parametrize(("declared", "between"), [(HUGE, False), ([1, 1], False), ([1, 1], True)])
def test_a_network_that_makes_a_huge_tensor_is_refused(
    saved: Callable[[onnx.GraphProto], Path], op: str, declared: list[int], between: bool
) -> None:
    with pytest.raises(ModelError, match="larger than can be timed"):
        find_model(saved(grown(op, declared=declared, between=between)))


@pytest.mark.parametrize("graph", [declared_output(), branch(), sparse()])
def test_a_huge_tensor_is_found_wherever_it_hides(
    saved: Callable[[onnx.GraphProto], Path], graph: onnx.GraphProto
) -> None:
    with pytest.raises(ModelError, match="larger than can be timed"):
        find_model(saved(graph))


@pytest.mark.slow
def test_a_network_of_terabytes_is_refused_in_little_memory(
    saved: Callable[[onnx.GraphProto], Path],
) -> None:
    path = saved(grown("Expand", declared=[1, 1], between=True))
    text = refused("bench", path)
    assert "larger than can be timed" in text
    assert str(path) in text


def test_the_limit_is_one(tmp_path: Path) -> None:
    """A reader that takes the memory fails here."""
    (tmp_path / "x.json").write_bytes(b'{"kind": "' + b"x" * (400 * 2**20) + b'"}')
    with pytest.raises(AssertionError, match="MemoryError"):
        refused("json", tmp_path / "x.json")
