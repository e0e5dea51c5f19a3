"""`hwprune bench` with TensorRT above the stand-in: files in one number format, profiles of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwprune.cli.main import main
from hwprune.errors import ModelError
from hwprune.runtimes import tensorrt_cuda
from hwprune.runtimes.half import half
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.quantise import quantise
from hwprune.structure.onnx_format import number_format


@pytest.fixture
def machine(monkeypatch, tmp_path, repository):
    monkeypatch.syspath_prepend(repository / "tests" / "runtimes")
    from tensorrt_standin import Machine, install

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tensorrt_cuda._retained.cache_clear()
    yield install(monkeypatch, Machine())
    tensorrt_cuda._retained.cache_clear()


def test_the_number_format_of_a_file_is_told():
    content = conv_chain([8, 16])
    assert number_format(content) == "fp32"
    assert number_format(half(content)) == "fp16"
    assert number_format(quantise(content, symmetric=True)) == "int8"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_plain_file_is_brought_to_the_profiles_format_and_an_exported_one_is_not(
    machine, capsys, precision
):
    content = conv_chain([8, 16, 8])
    lowered = half(content) if precision == "fp16" else quantise(content, symmetric=True)
    Path("plain.onnx").write_bytes(content)
    Path("exported.onnx").write_bytes(lowered)
    command = ["--profile", f"cuda-trt-{precision}", "--max-time", "1s"]
    assert main(["bench", "plain.onnx", "--baseline", "exported.onnx", *command]) == 0
    said = capsys.readouterr().err
    assert f"plain.onnx is in 32-bit floats: it is brought to {precision}" in said
    assert "exported.onnx is in" not in said
    assert Path("plain.onnx").read_bytes() == content


def test_a_runtime_that_nobody_chose_is_told(machine, capsys):
    Path("plain.onnx").write_bytes(conv_chain([8, 16]))
    assert main(["bench", "plain.onnx", "--device", "cuda:0", "--max-time", "1s"]) == 0
    told = "cuda:0 is measured by tensorrt (profile cuda-trt-fp32)"
    assert told in capsys.readouterr().err
    assert main(["bench", "plain.onnx", "--profile", "cuda-trt-fp32", "--max-time", "1s"]) == 0
    assert told not in capsys.readouterr().err


def test_a_file_of_another_format_is_refused_with_what_to_type(machine, capsys):
    Path("exported.onnx").write_bytes(half(conv_chain([8, 16, 8])))
    assert main(["bench", "exported.onnx", "--profile", "cuda-trt-fp32", "--max-time", "1s"]) == 2
    said = capsys.readouterr().err
    assert "does not compute in fp32" in said
    assert "--profile cuda-trt-fp32, -fp16 or -int8" in said


def test_a_file_that_cannot_be_brought_there_is_named(machine, monkeypatch, capsys):
    def refuse(*given, **more):
        raise ModelError("The network cannot be converted to fp16.")

    monkeypatch.setattr("hwprune.runtimes.tensorrt.half", refuse)
    Path("plain.onnx").write_bytes(conv_chain([8, 16]))
    assert main(["bench", "plain.onnx", "--profile", "cuda-trt-fp16", "--max-time", "1s"]) == 2
    assert "plain.onnx" in capsys.readouterr().err
