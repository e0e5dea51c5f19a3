"""Contracts with ONNX Runtime; nothing here depends on how fast the machine is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwprune.errors import DeviceError
from hwprune.runtimes import TargetProfile
from hwprune.runtimes.onnxruntime import SPINNING, OnnxRuntime, session_options, spinning
from hwprune.runtimes.probes import conv_chain, model_bytes

PROFILE = TargetProfile(name="test")
RUNTIME = OnnxRuntime()


def test_too_little_memory_for_inputs_and_outputs_is_a_device_error(monkeypatch):
    def no_memory(session, profile):
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr("hwprune.runtimes.onnxruntime._bind", no_memory)
    with pytest.raises(DeviceError, match="no memory"):
        RUNTIME.compile(conv_chain([4, 4]), PROFILE)


def residual_net(stem: int, hidden: int) -> bytes:
    """input -> conv0+relu -> conv1+relu -> conv2 (+ conv0+relu) + relu -> pool -> linear."""
    rng = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32) * 0.1, name)

    def conv(source, index):
        names = [source, f"conv{index}.weight"]
        return helper.make_node(
            "Conv", names, [f"c{index}"], name=f"C{index}", kernel_shape=[3, 3], pads=[1] * 4
        )

    nodes = [
        conv("input", 0),
        helper.make_node("Relu", ["c0"], ["r0"], name="R0"),
        conv("r0", 1),
        helper.make_node("Relu", ["c1"], ["r1"], name="R1"),
        conv("r1", 2),
        helper.make_node("Add", ["c2", "r0"], ["sum"], name="A"),
        helper.make_node("Relu", ["sum"], ["r2"], name="R2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["pool"], name="P"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="F"),
        helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["output"], name="G", transB=1),
    ]
    weights = [
        weight("conv0.weight", stem, 3, 3, 3),
        weight("conv1.weight", hidden, stem, 3, 3),
        weight("conv2.weight", stem, hidden, 3, 3),
        weight("fc.weight", 10, stem),
        weight("fc.bias", 10),
    ]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 16, 16]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10]),
    ]
    return model_bytes(helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights))


@pytest.mark.parametrize("policy", SPINNING)
def test_config_keys_are_spelt_as_the_library_spells_them(policy):
    import onnxruntime

    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if policy == "brief" and version < (1, 31):
        pytest.skip("this build is older than the key: `stop` takes its place")
    binary = b"".join(path.read_bytes() for path in Path(onnxruntime.__file__).parent.glob("capi/*state*.so"))
    assert binary
    for key in SPINNING[policy]:
        assert key.encode() in binary
    for key in ("session.set_denormal_as_zero", "session.optimized_model_external_initializers_file_name"):
        assert key.encode() in binary


def test_settings_stick_and_are_read_back():
    profile = TargetProfile(
        name="x",
        threads=2,
        options={"spinning": "stop", "denormal_as_zero": True, "graph_optimization": "basic"},
    )
    options = session_options(profile)
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"


def test_spinning_keeps_the_deployed_default_for_one_thread_only():
    assert spinning(PROFILE) == "default"
    assert spinning(replace(PROFILE, threads=2)) in ("brief", "stop")
    assert spinning(replace(PROFILE, threads=2, options={"spinning": "off"})) == "off"


def test_describes_version_and_build():
    import onnxruntime

    assert RUNTIME.describe()["version"] == onnxruntime.__version__
    assert RUNTIME.describe()["build"]


def test_reorders_are_kernels_of_their_own():
    if "avx" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor may have no blocked layout")
    kernels = RUNTIME.profile_kernels(residual_net(16, 21), PROFILE, runs=2)  # 21 channels leave the blocks
    reorders = [kernel for kernel in kernels if kernel.reorder]
    assert reorders
    assert all("Reorder" in kernel.op for kernel in reorders)
    assert {kernel.tensor for kernel in reorders} <= {"r0", "c1", "r1", "c2", "sum", "r2", "pool"}


def test_nodes_without_names_are_told_apart_and_no_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    model = onnx.load_model_from_string(residual_net(16, 32))
    for node in model.graph.node:
        node.name = ""
    kernels = RUNTIME.profile_kernels(model.SerializeToString(), PROFILE, runs=2)
    assert all(kernel.tensor for kernel in kernels)
    assert list(tmp_path.iterdir()) == []


def test_runtimes_import_no_torch():
    code = "import hwprune.runtimes, sys; sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
