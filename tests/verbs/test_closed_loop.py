"""The closed loop: what measured leaders teach."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from outcomes import outcome

from hwprune.searching.closed_loop import Loop
from hwprune.searching.limits import Budget
from hwprune.units import parse_latency


@pytest.mark.parametrize(("error", "taught"), [(0.03, True), (0.05, False)])
def test_leaders_that_are_known_too_roughly_teach_nothing(error: float, taught: bool) -> None:
    found = outcome(0.9)
    result = SimpleNamespace(ms=97.0, error_ms=error * 97.0, too_noisy=False)
    device = SimpleNamespace(networks=lambda widths, **options: [result for _ in widths])
    model = SimpleNamespace(predict=lambda widths: np.full(len(widths), 90.0))
    target = SimpleNamespace(device=device, base_error_ms=0.0, drift=0.0, contention=0.0, model=model)
    budget = Budget("size", "ms", 200.0, model.predict, parse_latency("50%"), target)
    told: list[str] = []
    correction = Loop([budget], SimpleNamespace(note=told.append))(found.candidates, ())
    assert [text.startswith("size: measured 1.078 times") for text in told] == [True] * taught
    assert (correction is not None) == taught
    if correction is not None:
        assert correction.factors == {"size": pytest.approx(97 / 90)}
