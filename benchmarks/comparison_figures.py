"""Figures of the comparison's runs, as its page writes them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Seed = dict[str, Any]  # the runs of one
SEEDS = 3  # fewer give no verdict
PAIR = ("hwprune", "uniform")


def filled(text: str) -> list[str]:
    """Lines of a page."""
    return textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)


def values(runs: Sequence[Seed], name: str, key: str = "test_top1") -> list[float]:
    """A figure of every seed that has it."""
    return [float(seed[name][key]) for seed in runs if key in seed.get(name, {})]


def points(runs: Sequence[Seed], name: str) -> str:
    """Mean accuracy, and that of each seed."""
    found = [100 * value for value in values(runs, name)]
    if not found:
        return "not run"
    return f"{np.mean(found):.2f}" + (f" ({', '.join(f'{v:.2f}' for v in found)})" if len(found) > 1 else "")


def pair(seed: Seed, kind: str, budget: str) -> Seed:
    """Those runs of one kind of hwprune's network and of uniform widths that there are."""
    return {row: seed[name] for row in PAIR if (name := f"{kind}/{row}/{budget}") in seed}


def device_of(run: dict[str, Any]) -> str:
    """`cpu`, or the name of the GPU, on which a network was trained; the first records name none."""
    return str(run.get("trained_on", "cpu"))


def gaps(runs: Sequence[Seed], ours: str, rival: str) -> list[float]:
    """Differences in points of the seeds that have both."""
    both = (seed for seed in runs if {ours, rival} <= set(seed))
    return [100 * (seed[ours]["test_top1"] - seed[rival]["test_top1"]) for seed in both]


def ahead(found: Sequence[float], goal: float | None) -> str:
    """How far hwprune is ahead, with the standard error of the mean, and whether that is the goal."""
    if not found:
        return ""
    mean, count = float(np.mean(found)), len(found)
    error = f" ± {np.std(found, ddof=1) / count**0.5:.2f}" if count > 1 else ""
    if goal is None:
        verdict = ""
    elif count < SEEDS:
        verdict = f", {count} of {SEEDS} seeds"
    else:
        verdict = ", met" if mean >= goal else ", missed"
    return f"{mean:+.2f}{error}{verdict}"
