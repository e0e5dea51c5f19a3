"""What needs a GPU: `pytest -m gpu`. Everything here is skipped, with its reason, where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hwprune import nvml
from hwprune.cudadriver import driver_facts
from hwprune.errors import DeviceError, HwpruneError
from hwprune.latency.measure import measure
from hwprune.models.registry import build
from hwprune.pruningnet.net import PruningNet
from hwprune.runtimes.probes import conv_chain
from hwprune.runtimes.profiles import default_profile, load_profile, profile_names
from hwprune.runtimes.registry import get_runtime
from hwprune.runtimes.torch_cuda import TorchCudaRuntime, switches
from hwprune.runtimes.torch_graph import TorchGraph
from hwprune.structure.export import export_base
from hwprune.structure.trace import trace
from hwprune.training.evaluation import recalibrate
from hwprune.training.precision import Execution

pytestmark = pytest.mark.gpu
MISSING = TorchCudaRuntime().missing()
needs_torch = pytest.mark.skipif(MISSING is not None, reason=f"torch has no GPU: {MISSING and MISSING[0]}")
GPU = torch.device("cuda", 0)
NET = conv_chain([3, 64, 64, 32], size=28, batch=2)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.startswith("cuda")])
def test_every_profile_that_works_here_times_a_network_and_its_kernels(name):
    profile = replace(load_profile(name), batch=2)
    try:
        runtime = get_runtime(profile)
    except HwpruneError as error:
        pytest.skip(str(error))
    content = runtime.lower(NET, profile)
    with runtime.compile(content, profile) as one, runtime.compile(content, profile) as other:
        result = measure(one, other, max_seconds=2.0)
    assert result.ratio == pytest.approx(1.0, abs=0.2)
    try:
        runtime.check_table(profile)
    except DeviceError:
        return  # it times files only
    kernels = runtime.profile_kernels(content, profile, runs=5)
    assert {kernel.tensor for kernel in kernels} & {"conv0", "relu0"}
    assert all(kernel.time_us > 0 for kernel in kernels)


@pytest.mark.parametrize("name", [name for name in profile_names() if name.startswith("cuda")])
def test_cold_caches_make_no_network_faster(name):
    hot = load_profile(name)
    hot = replace(hot, options={**hot.options, "buffers": "hot"})
    cold = replace(hot, options={**hot.options, "buffers": "rotating"})
    try:
        runtime = get_runtime(cold)
    except HwpruneError as error:
        pytest.skip(str(error))
    content = runtime.lower(conv_chain([256, 512, 512, 256], size=14), hot)
    with runtime.compile(content, cold) as one, runtime.compile(content, hot) as other:
        assert measure(one, other, max_seconds=2.0).ratio > 0.9


def test_the_driver_tells_what_nvml_does():
    if not nvml.gpus():
        pytest.skip("NVML sees no GPU" if nvml.installed() else "nvidia-ml-py is not installed")
    facts = driver_facts(0)
    assert facts is not None
    assert facts.name == nvml.gpus()[0]["gpu_name"]
    assert facts.capability == nvml.gpus()[0]["gpu_capability"]
    assert facts.cache_bytes > 0


@needs_torch
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)]
)
def test_torch_computes_the_same_on_the_gpu(dtype, error):
    content = export_base(build("resnet20", num_classes=10, image_size=32), (2, 3, 32, 32))
    here = TorchGraph(content, torch.device("cpu"), torch.float32, channels_last=True)
    there = TorchGraph(content, GPU, dtype, channels_last=True)
    with switches(load_profile("cuda-torch-fp32")):  # else cuDNN computes 32 bits in TensorFloat-32
        wanted, got = here(here.example), there(there.example).float().cpu()
    assert (got - wanted).abs().max() < error * wanted.abs().max()


@needs_torch
def test_kernels_add_up_to_about_the_whole_network():
    """Without the gaps between kernels; a network large enough that starting them does not count."""
    content = export_base(build("torchvision:resnet50"), (32, 3, 224, 224))
    profile = replace(load_profile("cuda-torch-fp32"), batch=32)
    runtime = get_runtime(profile)
    with runtime.compile(content, profile) as session:
        whole_ms = float(np.median(session.time_runs(20)))
    parts_ms = sum(kernel.time_us for kernel in runtime.profile_kernels(content, profile, runs=10)) / 1e3
    assert parts_ms == pytest.approx(whole_ms, rel=0.15)


def test_the_default_profile_is_one_that_works():
    try:
        profile = default_profile("cuda:0")
    except DeviceError as error:
        pytest.skip(str(error))
    get_runtime(profile)


def test_nvml_sees_the_gpu():
    if not nvml.gpus():
        pytest.skip("NVML sees no GPU" if nvml.installed() else "nvidia-ml-py is not installed")
    state = nvml.gpu_state(0)
    assert state["sm_mhz"] > 0
    assert state["temperature_c"] > 0


@needs_torch
@pytest.mark.parametrize("generator", ["fc", "residual", "shared"])
def test_pruningnet_takes_steps_on_the_gpu(generator):
    model = build("resnet20", num_classes=10, image_size=32)
    space = trace(model.eval(), torch.zeros(1, 3, 32, 32), name="resnet20")
    net = PruningNet(model, space, generator).to(GPU).train()
    widths = space.sample(np.random.default_rng(0))
    net.set_widths(widths)
    execution = Execution(device=GPU, bf16=True, channels_last=True)
    images = execution.place(torch.randn(8, 3, 32, 32))
    with execution.autocast():
        loss = net(images).float().square().mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    dense = net.eval().materialise(widths)
    recalibrate(dense, [(images, torch.zeros(8))], execution)
    assert dense(images).isfinite().all()
