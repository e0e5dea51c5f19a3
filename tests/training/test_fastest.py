"""The precision of a training is measured, kept, and measuring it changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from hwprune.training import fastest, loop
from hwprune.training.checkpoint import kept_precision
from hwprune.training.fastest import faster_precision
from hwprune.training.loop import train
from hwprune.training.settings import TrainSettings

AUTO = TrainSettings(epochs=2, batch_size=64, lr=0.05)
needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no bfloat16 at all"
)


@pytest.mark.parametrize(("share", "expected"), [(0.5, "bf16"), (0.97, "fp32"), (2.0, "fp32")])
@needs_bf16
def test_bfloat16_is_used_where_a_step_is_clearly_faster(make_net, monkeypatch, share, expected):
    monkeypatch.setattr(fastest, "has_fast_bf16", lambda device: True)
    warming = [True, True]

    def step(module, images, execution):
        first = bool(warming) and warming.pop()
        return (share if execution.bf16 else 1.0) * (0.01 if first else 1.0)

    monkeypatch.setattr(fastest, "_step", step)
    assert faster_precision(make_net(), torch.zeros(4, 3, 16, 16), "auto") == expected


def test_nothing_is_measured_without_instructions(make_net, monkeypatch):
    monkeypatch.setattr(fastest, "has_fast_bf16", lambda device: False)
    monkeypatch.setattr(fastest, "_step", None)
    assert faster_precision(make_net(), torch.zeros(4, 3, 16, 16), "auto") == "fp32"


@needs_bf16
def test_measuring_changes_nothing(make_net, monkeypatch):
    monkeypatch.setattr(fastest, "has_fast_bf16", lambda device: True)
    net = make_net().eval()
    net.dropout.train()
    before, images = copy.deepcopy(net.state_dict()), torch.randn(8, 3, 16, 16)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    faster_precision(net, images, "auto")
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [part.training for part in net.children()] == [False, True, False]


@needs_bf16
@pytest.mark.parametrize("broken_after", [0, 1])
def test_a_resumed_run_keeps_the_precision_that_was_measured(
    digits, make_net, tmp_path, monkeypatch, broken_after
):
    def interrupt(done: float, total: int, /, **figures: float) -> None:
        if done > broken_after:
            raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    unbroken, resumed = make_net(), make_net()
    monkeypatch.setattr(loop, "faster_precision", lambda *_: "bf16")
    train(unbroken, digits.train, AUTO)
    monkeypatch.setattr(loop, "_TELL_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(make_net(), digits.train, AUTO, checkpoint=path, progress=interrupt)
    assert kept_precision(path) == "bf16"
    monkeypatch.setattr(loop, "faster_precision", lambda *_: "fp32")
    train(resumed, digits.train, AUTO, checkpoint=path)
    assert kept_precision(path) == "bf16"
    for one, other in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_file_that_tells_no_precision(tmp_path):
    assert kept_precision(None) is None
    assert kept_precision(tmp_path / "absent") is None
    (tmp_path / "x").write_bytes(b"\xff" * 40)
    assert kept_precision(tmp_path / "x") is None
