"""Good files of every kind, all about one small network: what the mutations start from."""

from __future__ import annotations

import functools
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from hwprune.latency.folder import TableFolder
from hwprune.latency.profiler import profile_space
from hwprune.results import ExportResult, Figure, FrontResult, ProfileResult, SearchResult, TrainResult
from hwprune.runtimes.base import TargetProfile
from hwprune.runtimes.fake import FakeDevice, FakeRuntime
from hwprune.structure.export import export_base
from hwprune.structure.onnx_graph import without_weights
from hwprune.structure.space import SearchSpace
from hwprune.structure.trace import trace

PROFILE = TargetProfile(name="fake", runtime="fake")
_EPOCH = {"epoch": 1, "loss": 1.5, "top1": 0.25, "lr": 0.1, "seconds": 2.0}
_FIGURES = (
    Figure(
        name="fake", unit="ms", base=2.0, predicted=1.0, measured=1.1, error=0.01, budget="60%", limit=1.2
    ),
    Figure(name="macs", unit="MACs", base=2e6, predicted=1e6, measured=1e6, budget="1M", limit=1e6),
)
_GENERATION = {"generation": 1, "evaluated": 8, "best_score": 0.5, "mean_score": 0.4, "budget_use": 0.9}
_LESSON = {
    "factors": {"fake": 1.01},
    "measured": (((8, 16), {"fake": 1.1}),),
    "checks": (("fake", 1.0, 1.1, 0.01), ("fake", 1.0, 1.1, None)),
    "refitted": ("fake",),
}
_STEP = {
    "group": "0",
    "narrow": 8,
    "wide": 16,
    "around": "chosen",
    "predicted_percent": 0.5,
    "measured_percent": 0.6,
    "error_percent": None,
}
_DEVICE = {
    "name": "fake",
    "command": "hwprune profile",
    "profile": PROFILE.to_payload(),
    "device": {"device": "cpu", "model": "Pretended CPU"},
    "runtime": {"runtime": "fake", "version": "1"},
    "settings": {},
    "libraries": {"numpy": "2.0"},
    "date": "2026-01-01T00:00:00+00:00",
}
_STAMP = {"structure": "0123456789abcdef"}


def network() -> nn.Module:
    """Two convolutions, one of them with a shortcut's addition, and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)),
    )


@functools.cache
def space() -> SearchSpace:
    """Its search space, with few choices."""
    return trace(network(), torch.zeros(1, 3, 8, 8)).with_choices(8)


@functools.cache
def onnx_bytes() -> bytes:
    """It as ONNX."""
    return export_base(network().eval(), (1, 3, 8, 8))


@functools.cache
def table_files() -> dict[str, bytes]:
    """The files of a latency table: name -> content."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runtime = FakeRuntime(FakeDevice(step=8))
        table = profile_space(
            space(),
            onnx_bytes(),
            PROFILE,
            runtime,
            folder=folder / "profile",
            max_error=1e-9,
            max_networks=16,
        )
        TableFolder(table, space(), without_weights(onnx_bytes())).save(folder / "table")
        files = {path.name: path.read_bytes() for path in sorted((folder / "table").iterdir())}
        records = sorted((folder / "profile" / "networks").iterdir())
        return {**files, **{f"networks/{path.name}": path.read_bytes() for path in records}}


def results() -> tuple[ProfileResult | SearchResult | FrontResult | TrainResult | ExportResult, ...]:
    """One result of every kind."""
    search = SearchResult(
        model="resnet20",
        widths=(8, 16),
        groups=("0", "3"),
        full_widths=(16, 24),
        figures=_FIGURES,
        binding="fake",
        base_meets_budget=False,
        score=0.5,
        score_kind="pruningnet",
        images=True,
        profile="fake",
        target=PROFILE.to_payload(),
        **{"seed": 0, "pruningnet": "pruningnet-0123456789abcdef.safetensors", **_STAMP},
        pruningnet_history=(_EPOCH,),
        candidates=((0.5, 1.0), (0.25, 0.5)),
        history=(_GENERATION, {**_GENERATION, "best_score": None, "budget_use": None}),
        corrections=(_LESSON,),
        inversions=(_STEP,),
        layer_times={"0": (20.0, 10.0), "(add)": (1.0, 1.0)},
        held_out=((1.0, 1.1, 0.01),),
        devices=(_DEVICE,),
    )
    return (
        search,
        FrontResult(budget="1ms:2ms", points=(search,), searched=3, **_STAMP),
        ProfileResult(
            model="resnet20",
            profile="fake",
            groups=2,
            frozen={"7": "the classifier"},
            networks=16,
            kernels=64,
            channel_multiple=8,
            base_ms=2.0,
            base_error_ms=0.01,
            base_digest="0" * 64,
            target=PROFILE.to_payload(),
            error_percent=None,
            seconds=9.5,
            **_STAMP,
        ),
        TrainResult(
            model="resnet20",
            widths=(8, 16),
            base_top1=0.9,
            top1=0.8,
            start="scratch",
            base_source="trained by the recipe of the pruned network",
            epochs=2,
            test_images=360,
            data="cifar10",
            test_digest="0" * 64,
            **{"seed": 0, "history": (_EPOCH,), "base_history": (_EPOCH,), **_STAMP},
        ),
        ExportResult(
            file="pruned.onnx",
            bytes=999,
            precision="fp32",
            max_difference=1e-6,
            tolerance=1e-3,
            widths=(8, 16),
            profile="fake",
            figures=_FIGURES,
            within_budget=True,
            weights="trained",
            top1=0.8,
            trained_top1=0.8,
            **{"digest": "0" * 64, **_STAMP},
        ),
    )


def picture(number: int, kind: str, mode: str = "RGB") -> bytes:
    """An image file of 12 x 10 pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind)
    return file.getvalue()
