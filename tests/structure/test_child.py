"""What may crash in native code is done by a child process, whose death is told and not shared."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest
import torch
from torch import nn

import hwprune
from hwprune.errors import ModelError
from hwprune.structure.child import ChildError, in_child
from hwprune.structure.onnx_weights import WeightedGraph

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="work is done in the process itself elsewhere"
)
IMAGE = (1, 3, 8, 8)


@pytest.fixture(autouse=True)
def silence():
    """Children die on purpose here: no stacks of them in the output."""
    enabled = faulthandler.is_enabled()
    faulthandler.disable()
    yield
    if enabled:
        faulthandler.enable()


def die(*_: object, **__: object) -> NoReturn:
    os.abort()


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


def test_a_child_returns_what_its_work_returns() -> None:
    content = os.urandom(2**20)  # more than a pipe holds
    assert in_child(lambda: content + str(os.getppid()).encode()) == content + str(os.getpid()).encode()


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (die, "SIGABRT"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os._exit(0), "exit code 0"),
    ],
)
def test_a_child_that_dies_is_told_how(work: Callable[[], bytes], message: str) -> None:
    with pytest.raises(ChildError, match=message) as caught:
        in_child(work)
    assert caught.value.died


@pytest.mark.parametrize("error", [ValueError("bad size"), SystemExit("bad size")])
def test_what_its_work_raises_is_told(error: BaseException) -> None:
    def work() -> bytes:
        raise error

    with pytest.raises(ChildError, match=f"{type(error).__name__}: bad size") as caught:
        in_child(work)
    assert not caught.value.died


def test_a_child_computes_after_its_parent_used_several_threads() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.rand(2**22).relu().sum()
        assert hwprune.export_base(model(), IMAGE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_an_exporter_that_dies_is_a_documented_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", die)
    for call in (hwprune.export_base, hwprune.trace):
        with pytest.raises(ModelError, match="cannot be exported") as caught:
            call(model(), torch.zeros(IMAGE))
        assert "SIGABRT" in str(caught.value)


def test_a_file_that_a_runtime_dies_of_is_a_documented_error(monkeypatch: pytest.MonkeyPatch) -> None:
    content = hwprune.export_base(model(), IMAGE)
    monkeypatch.setattr(WeightedGraph, "run", die)
    with pytest.raises(ModelError, match="ends the process") as caught:
        hwprune.trace_onnx(content)
    assert "SIGABRT" in str(caught.value)
