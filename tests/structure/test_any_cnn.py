"""What `trace`, `prune` and `slice_onnx` promise, on every network of the zoo at random widths."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from zoo import FROZEN_IN, SIZES, images, traced

from hwprune.errors import HwpruneWarning
from hwprune.exporter import export_base
from hwprune.structure.onnx_slice import OnnxSlicer
from hwprune.structure.prune import prune
from hwprune.structure.space import SearchSpace

pytestmark = pytest.mark.filterwarnings("ignore::hwprune.errors.HwpruneWarning")


def random_widths(space: SearchSpace, count: int = 3) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(7)
    return [space.smallest(), *(space.sample(rng) for _ in range(count))]


def count_macs(model: nn.Module, x: torch.Tensor) -> int:
    """MACs of one image, counted from what each layer really computed."""
    total = 0

    def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        reads = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        total += output.numel() // len(x) * reads

    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        model(x)
    for handle in hooks:
        handle.remove()
    return total


@pytest.fixture(scope="module", params=SIZES)
def name(request: pytest.FixtureRequest) -> str:
    """Each network of the zoo; module scope runs all tests of one network together, on one trace."""
    return str(request.param)


def test_pruned_networks_agree_in_torch_onnx_and_counts(name: str) -> None:
    model, space = traced(name)
    x = images(name)
    slicer = OnnxSlicer(export_base(model, tuple(x.shape)), space)
    differs = []
    for widths in random_widths(space):
        pruned = prune(model, space, widths)
        with torch.no_grad():
            expected = pruned(x).numpy()
        session = onnxruntime.InferenceSession(slicer.slice(widths), providers=["CPUExecutionProvider"])
        got = session.run(None, {"input": x.numpy()})[0]
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()
        differs.append(np.ptp(expected, axis=0).max() / np.abs(expected).max())
        assert int(space.macs(widths)) == count_macs(pruned, x)
        assert int(space.params(widths)) == sum(p.numel() for p in pruned.parameters())
    assert max(differs) > 1e-3, "outputs that do not depend on the input would prove nothing"


def test_spaces_are_rich_and_keep_the_outputs(name: str) -> None:
    model, space = traced(name)
    x = images(name)
    with torch.no_grad():
        assert prune(model, space, space.smallest())(x).shape == model(x).shape == (2, 10)
        assert torch.equal(prune(model, space, space.full())(x), model(x))
    kept = int(space.params(space.smallest())) / int(space.params(space.full()))
    assert kept < (0.6 if name in FROZEN_IN else 0.1), "nearly everything can be pruned"
    unexplained = [reason for reason in space.frozen.values() if "outputs" not in reason]
    assert bool(unexplained) == (name in FROZEN_IN)


def test_what_is_frozen_is_named_with_its_reason() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced.cache_clear()
        traced("torchvision:shufflenet_v2_x1_0")
    texts = [str(w.message) for w in caught if issubclass(w.category, HwpruneWarning)]
    assert len(texts) == 1
    assert "stage2.0.branch1.2" in texts[0]
    assert "view" in texts[0]
