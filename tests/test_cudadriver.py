"""The driver through a stand-in for libcuda that has only functions of `cuda.h`."""

from __future__ import annotations

import ctypes

import pytest

from hwprune import cudadriver
from hwprune.cudadriver import driver_facts
from hwprune.runtimes import TargetProfile, cold
from hwprune.runtimes.probes import conv_chain


class Libcuda:
    """One GPU. Sources: cuda.h, and `cuda.bindings.driver`, with whose names it is compared."""

    def cuInit(self, flags):  # noqa: N802 - spelt as in CUDA
        return 0

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        device._obj.value = 100 + ordinal
        return 0 if ordinal == 0 else 101  # CUDA_ERROR_INVALID_DEVICE

    def cuDeviceGetName(self, name, length, device):  # noqa: N802
        assert device.value == 100
        name.value = b"Pretended GPU"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = {38: 50 * 2**20, 75: 9, 76: 0}[attribute]
        return 0


@pytest.fixture
def library(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libcuda())


def test_name_capability_and_cache_are_told(library):
    assert driver_facts(0) == ("Pretended GPU", "9.0", 50 * 2**20)
    assert driver_facts(1) is None


def test_without_a_driver_there_are_no_facts(monkeypatch, library):
    monkeypatch.setattr(Libcuda, "cuInit", lambda self, flags: 100)  # CUDA_ERROR_NO_DEVICE
    assert driver_facts(0) is None

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert driver_facts(0) is None


def test_cuda_bindings_that_are_installed_agree():
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    for name in (name for name in vars(Libcuda) if name.startswith("cu")):
        assert hasattr(driver, name)
    numbers = driver.CUdevice_attribute
    assert numbers.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE == cudadriver.L2_CACHE_SIZE
    assert numbers.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == cudadriver.CAPABILITY_MAJOR
    assert numbers.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == cudadriver.CAPABILITY_MINOR


def test_copies_are_enough_for_the_cache_that_the_driver_tells(library, monkeypatch):
    content = conv_chain([64, 512, 512], size=14)
    size = cold.network_bytes(content)
    assert size == pytest.approx(4 * (9 * 512 * (64 + 512) + 64 * 14 * 14), rel=0.01)
    rotating = TargetProfile(name="gpu", device="cuda:0", options={"buffers": "rotating"})
    assert cold.copies(content, TargetProfile(name="gpu", device="cuda:0")) == 1
    assert cold.copies(content, rotating) == cold.replicas(size, 50 * 2**20) == 10
    monkeypatch.setattr(cold, "driver_facts", lambda index: None)
    assert cold.copies(content, rotating) == cold.replicas(size, 128 * 2**20)
