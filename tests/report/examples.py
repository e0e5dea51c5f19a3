"""Reports of invented figures, one for each kind of project, made without a device and without training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hwprune.latency.staircase import Staircase
from hwprune.latency.width_sweep import WidthCurve, WidthSweep
from hwprune.report.facts import LayerRow, Report
from hwprune.report.standing import MAX_DROP, advice, met, standing
from hwprune.report.verdict import rows, verdict
from hwprune.results import ExportResult, Figure, FrontResult, ProfileResult, SearchResult, TrainResult

GROUPS = ("stem", "layer1.0.conv1", "features.denseblock3.denselayer24.conv2")
FULL, WIDTHS = (16, 32, 64), (16, 16, 32)
LAYERS = ("stem", "layer1.0.conv1", "layer1.0.conv2", "features.denseblock3.denselayer24.conv2", "fc")
HOSTILE = "</script><img src=x onerror=alert(1)>"
DEVICE = {
    "name": "cpu-1t",
    "command": "hwprune profile",
    "profile": {"device": "cpu", "runtime": "fake", "precision": "fp32", "batch": 1, "threads": 1},
    "device": {"device": "cpu", "architecture": "x86_64", "model": "Pretended CPU", "cores": 2},
    "runtime": {"runtime": "fake", "version": "1.0"},
    "settings": {"threads": 1},
    "libraries": {"hwprune": "0.1.0", "numpy": "2.0"},
    "date": "2026-01-01T00:00:00+00:00",
}


def figures(*, measured: bool = True, budget: str = "60%", limit: float = 0.6) -> tuple[Figure, ...]:
    known = {"measured": 0.58, "error": 0.004} if measured else {}
    latency = Figure(name="cpu-1t", unit="ms", base=1.0, predicted=0.59, budget=budget, limit=limit, **known)
    macs = Figure(name="macs", unit="MACs", base=4e7, predicted=2e7, measured=2e7, error=0.0)
    return latency, macs


def search(**changes: object) -> SearchResult:
    rng = np.random.default_rng(0)
    latencies = rng.uniform(0.3, 0.6, 80)
    scores = np.clip(latencies + rng.normal(0, 0.05, 80), 0.05, 0.9)
    checks = tuple(("cpu-1t", ms, ms * float(rng.normal(1.02, 0.01)), 0.01 * ms) for ms in (0.5, 0.55, 0.58))
    held_out = tuple((ms, ms * float(rng.normal(1, 0.02)), 0.01 * ms) for ms in (0.4, 0.6, 0.8, 1.0))
    epochs = range(1, 9)
    found = SearchResult(
        model="example",
        widths=WIDTHS,
        groups=GROUPS,
        full_widths=FULL,
        figures=figures(),
        binding="cpu-1t",
        base_meets_budget=False,
        score=0.62,
        score_kind="pruningnet",
        images=True,
        profile="cpu-1t",
        target=DEVICE["profile"],
        seed=0,
        structure="s",
        pruningnet="pruningnet-x.safetensors",
        pruningnet_history=tuple(
            {"epoch": e, "loss": 2.3 / e, "top1": 1 - 0.9 / e, "lr": 0.1 / e, "seconds": 1.5} for e in epochs
        ),
        history=tuple(
            {
                "generation": n,
                "evaluated": 20,
                "best_score": None if n == 0 else 0.5 + 0.03 * n,
                "mean_score": 0.4 + 0.03 * n,
                "budget_use": 0.99,
            }
            for n in range(4)
        ),
        candidates=tuple(zip(scores.tolist(), latencies.tolist(), strict=True)),
        corrections=(
            {
                "factors": {"cpu-1t": 1.02},
                "measured": ((WIDTHS, {"cpu-1t": 0.5}),),
                "checks": checks,
                "refitted": (),
            },
        ),
        base_score=0.85,
        layer_times=dict.fromkeys((*LAYERS, "(add)", "(run)"), (200.0, 120.0)),
        held_out=held_out,
        devices=(DEVICE,),
        command="hwprune search --latency 60% --seed 0",
    )
    return replace(found, **changes)


def train() -> TrainResult:
    return TrainResult(
        model="example",
        widths=WIDTHS,
        base_top1=0.91,
        top1=0.9,
        base_source="trained from scratch for 8 epochs",
        start="scratch",
        epochs=8,
        test_images=500,
        seed=0,
        structure="s",
        data="digits",
        test_digest="d",
        classes=("ant", "bee", HOSTILE),
        confusion=((0, 0, 190), (0, 1, 10), (1, 1, 180), (1, 2, 20), (2, 2, 80), (2, 0, 20)),
        base_confusion=((0, 0, 195), (0, 1, 5), (1, 1, 178), (1, 2, 22), (2, 2, 82), (2, 0, 18)),
    )


def export() -> ExportResult:
    return ExportResult(
        file="pruned.onnx",
        bytes=300_000,
        precision="fp32",
        max_difference=1e-6,
        tolerance=1e-3,
        widths=WIDTHS,
        profile="cpu-1t",
        figures=figures(),
        within_budget=True,
        weights="trained",
        top1=0.9,
        trained_top1=0.9,
        digest="x",
        structure="s",
    )


def profile() -> ProfileResult:
    return ProfileResult(
        model="example",
        profile="cpu-1t",
        groups=3,
        frozen={},
        networks=40,
        kernels=900,
        channel_multiple=16,
        base_ms=1.0,
        base_error_ms=0.01,
        base_digest="x",
        target=DEVICE["profile"],
        structure="s",
        error_percent=1.7,
        seconds=60.0,
    )


def report(
    found: SearchResult | None = None,
    *,
    trained: TrainResult | None = None,
    exported: ExportResult | None = None,
    profiled: bool = True,
    front: FrontResult | None = None,
) -> Report:
    found = found or search()
    choices = {name: tuple(range(8, full + 1, 8)) for name, full in zip(GROUPS, FULL, strict=True)}
    curves = tuple(
        WidthCurve(
            group=name,
            widths=widths,
            network_ms=tuple(0.5 + w / 100 for w in widths),
            layers_us={
                layer: tuple(3.0 * -(-w // 16) + i for w in widths) for i, layer in enumerate(LAYERS[:2])
            },
        )
        for name, widths in choices.items()
    )
    channels = tuple(range(32, 129, 8))
    staircase = Staircase(channels, tuple(-(-c // 16) / 20 for c in channels), (0.001,) * len(channels), 16)
    return Report(
        profile=profile() if profiled else None,
        search=found,
        train=trained,
        export=exported,
        met=met(found, exported),
        standing=standing(found, trained, exported),
        advice=advice(found, trained, exported),
        max_drop=MAX_DROP,
        verdict=verdict(found, trained, exported),
        rows=rows(found, trained, exported),
        layers=tuple(LayerRow(name=n, op="conv", inputs=(16, 16), outputs=(32, 24)) for n in LAYERS),
        staircase=staircase if profiled else None,
        curves=WidthSweep(curves=curves, inversions=()) if profiled else None,
        front=front,
        commands=("hwprune profile", found.command, "hwprune report"),
        settings="[model]\nname = 'example'\n",
    )


def finished() -> Report:
    return report(trained=train(), exported=export())


def latency_only() -> Report:
    return report(search(images=False, score_kind="macs", pruningnet="", pruningnet_history=()))


def table_only() -> Report:
    """A latency table from elsewhere: predicted, not measured."""
    elsewhere = {**DEVICE, "command": ""}
    return report(
        search(figures=figures(measured=False), devices=(elsewhere,), corrections=()), profiled=False
    )


def nothing_pruned() -> Report:
    """The unpruned network keeps the budget."""
    nothing = {"history": (), "candidates": (), "corrections": (), "pruningnet_history": (), "pruningnet": ""}
    kept = figures(budget="2ms", limit=2.0)
    return report(search(figures=kept, widths=FULL, base_meets_budget=True, **nothing))


def front() -> Report:
    points = tuple(
        search(
            figures=(replace(figures()[0], measured=ms, budget=f"{ms}ms", limit=ms), figures()[1]), score=ms
        )
        for ms in (0.4, 0.5, 0.6)
    )
    made = FrontResult(budget="0.4ms:0.6ms", points=points, searched=4, structure="s")
    return report(points[1], front=made)


def hostile() -> Report:
    """Names that would do harm where they are not escaped."""
    names = (HOSTILE, *GROUPS[1:])
    return report(search(model=HOSTILE, groups=names, layer_times={HOSTILE: (2.0, 1.0), "| b": (1.0, 1.0)}))


KINDS = {
    "finished": finished,
    "latency-only": latency_only,
    "table-only": table_only,
    "nothing-pruned": nothing_pruned,
    "front": front,
    "hostile": hostile,
}
