"""The stand-in for TensorRT, pycuda and cuda-bindings has the names of the contract and no others."""

from __future__ import annotations

import enum
import inspect

import pytest
from tensorrt_names import (
    ABSENT_IN_11,
    CUDA_RUNTIME,
    ENUMS,
    ENUMS_OF,
    PYCUDA_DRIVER,
    TENSORRT,
)
from tensorrt_standin import Machine, driver_module, runtime_module, tensorrt_module

from hwprune.errors import HwpruneError
from hwprune.runtimes import TargetProfile, tensorrt_build
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.tensorrt import TensorRt

MODULES = [
    pytest.param(tensorrt_module(Machine(version=10)), TENSORRT, id="tensorrt-10"),
    pytest.param(tensorrt_module(Machine(version=11)), TENSORRT, id="tensorrt-11"),
    pytest.param(driver_module(Machine()), PYCUDA_DRIVER, id="pycuda.driver"),
    pytest.param(runtime_module(Machine()), CUDA_RUNTIME, id="cuda.bindings.runtime"),
]
HANDED_OUT = {"Dims", "IHostMemory"}  # the stand-in hands out a tuple and bytes instead


def public_names(module):
    """Dotted names of a module and of the classes in it; members of enumerations are compared apart."""
    names = set()
    for name, thing in vars(module).items():
        if name.startswith("__") and name != "__version__":
            continue
        if isinstance(thing, enum.EnumType) and name in {**ENUMS, **ENUMS_OF[10]}:
            continue
        names.add(name)
        if inspect.isclass(thing) and not isinstance(thing, enum.EnumType):
            names |= {f"{name}.{member}" for member in vars(thing) if not member.startswith("_")}
    return names


def parameters(thing):
    target = thing.__init__ if inspect.isclass(thing) else thing
    return tuple(name for name in inspect.signature(target).parameters if name != "self")


def resolve(module, name):
    thing = module
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize(("module", "contract"), MODULES)
def test_the_stand_in_has_exactly_the_names_of_the_contract(module, contract):
    assert public_names(module) == set(contract) - HANDED_OUT
    for name, (expected, source) in contract.items():
        assert source
        if expected is not None:
            assert parameters(resolve(module, name)) == expected, name


@pytest.mark.parametrize("version", [10, 11])
def test_enumerations_have_the_members_of_their_version(version):
    module = tensorrt_module(Machine(version=version))
    for name, members in {**ENUMS, **ENUMS_OF[version]}.items():
        assert list(resolve(module, name).__members__) == members
    for name, members in ABSENT_IN_11.items():
        for member in members:
            assert hasattr(getattr(module, name), member) is (version == 10)


def test_cuda_bindings_that_are_installed_agree():
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    for name, (expected, _) in CUDA_RUNTIME.items():
        thing = getattr(runtime, name)
        if expected is not None:
            assert parameters(thing) == expected, name
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal.value == 1
    assert runtime.cudaError_t.cudaSuccess.value == 0


@pytest.mark.parametrize("version", [10, 11])
def test_misspelt_calls_fail_in_the_stand_in(version):
    trt = tensorrt_module(Machine(version=version))

    class Logger(trt.ILogger):
        def log(self, severity, msg):
            pass

    builder = trt.Builder(Logger())
    config = builder.create_builder_config()
    for wrong in (
        lambda: trt.OnnxParserRefitter,
        lambda: builder.create_builder_configuration(),
        lambda: setattr(config, "max_auxiliary_streams", 0),
        lambda: trt.BuilderFlag.TF23,
        lambda: config.max_workspace_size,
    ):
        with pytest.raises(AttributeError):
            wrong()
    for wrong in (
        lambda: config.set_timing_cache(config.create_timing_cache(b"")),
        lambda: config.create_timing_cache(blob=b""),
        lambda: builder.build_serialized_network(builder.create_network()),
        lambda: trt.Builder(),
        lambda: trt.Builder("a logger"),
    ):
        with pytest.raises(TypeError):
            wrong()


def test_a_misspelt_call_in_the_package_fails(monkeypatch, tmp_path):
    from tensorrt_standin import install

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    install(monkeypatch, Machine())
    true_config = tensorrt_build._config

    def misspelt(builder, profile):
        config = true_config(builder, profile)
        config.max_aux_stream = 0
        return config

    monkeypatch.setattr(tensorrt_build, "_config", misspelt)
    profile = TargetProfile(name="trt", device="cuda:0", runtime="tensorrt")
    with pytest.raises(AttributeError, match="max_aux_stream") as caught:
        TensorRt().compile(conv_chain([8, 8]), profile)
    assert not isinstance(caught.value, HwpruneError)
