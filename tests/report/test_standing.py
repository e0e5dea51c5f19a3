"""A result that keeps its latency is no success when its accuracy is gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from examples import export, figures, report, search, train

from hwprune.report.build import document
from hwprune.report.html import page
from hwprune.report.markdown import markdown
from hwprune.report.standing import Standing, advice, standing
from hwprune.report.verdict import verdict
from hwprune.results import ExportResult, TrainResult


def lost(points: float, **changes: object) -> tuple[TrainResult, ExportResult]:
    """A training and a file that lost so many points."""
    top1 = 0.91 - points / 100
    return replace(train(), top1=top1, **changes), replace(export(), top1=top1, trained_top1=top1)


@pytest.mark.parametrize(
    ("points", "max_drop", "expected"),
    [
        (-1.0, 15.0, Standing.GOOD),
        (4.9, 15.0, Standing.GOOD),
        (5.1, 15.0, Standing.COSTLY),
        (14.9, 15.0, Standing.COSTLY),
        (15.1, 15.0, Standing.LOST),
        (15.1, 20.0, Standing.COSTLY),
        (2.1, 2.0, Standing.LOST),
        (1.9, 2.0, Standing.GOOD),
    ],
)
def test_what_was_lost_decides(points: float, max_drop: float, expected: Standing) -> None:
    assert standing(search(), *lost(points), max_drop) == expected


def test_a_missed_budget_stays_missed_whatever_the_accuracy() -> None:
    over = replace(export(), figures=figures(limit=0.5), within_budget=False)
    assert standing(search(), train(), over) == Standing.MISSED
    (line,) = advice(search(), train(), over)
    assert "hwprune doctor" in line


def test_what_is_no_share_is_told_as_it_is() -> None:
    trained = replace(train(), metric="PSNR", base_top1=32.0, top1=31.8)
    file = replace(export(), metric="PSNR", top1=31.8, trained_top1=31.8)
    assert standing(search(), trained, file) == Standing.GOOD
    assert "test PSNR 31.8, -0.2 (-0.6 %) against" in verdict(search(), trained, file)
    worse = replace(trained, top1=20.0), replace(file, top1=20.0, trained_top1=20.0)
    assert verdict(search(), *worse).startswith("ACCURACY LOST, 37.5 % where 15 may go.")


def test_lost_accuracy_heads_the_sentence() -> None:
    text = verdict(search(), *lost(30.0))
    assert text.startswith("ACCURACY LOST, 30.0 points where 15 may go. Budget met:")
    assert verdict(search(), *lost(7.0)).startswith("Budget met, with 7.0 points of accuracy lost:")
    assert verdict(search(), *lost(3.0)).startswith("Budget met: the exported file")


def test_the_next_steps_are_those_that_help() -> None:
    assert advice(search(), *lost(3.0)) == ()
    lines = advice(search(epochs=6.0), *lost(30.0))
    assert [line.partition(":")[0] for line in lines] == [
        "Start from the unpruned network's weights",
        "Train longer",
        "Allow more latency",
        "Give the search more epochs",
    ]
    assert "`hwprune train --epochs 16`; it was 8 epochs" in lines[1]
    assert "--latency 80%`; it was 60%" in lines[2]
    trained, exported = lost(30.0, start="inherited")
    assert advice(search(), trained, exported)[0].startswith("Train longer")
    in_ms = search(figures=figures(budget="0.6ms"))
    assert "--latency 800µs`; it was 0.6ms" in advice(in_ms, trained, exported)[1]


def test_stages_that_were_not_run_come_first() -> None:
    assert advice(search(), None, None) == ("Train the network: `hwprune train`.",)
    assert advice(search(), train(), None) == ("Write the file and measure it: `hwprune export --onnx`.",)


def test_integers_that_do_not_pay_are_told() -> None:
    slower = replace(export(), precision="int8", floats={"bytes": 10**6, "ratio": 1.1, "error": 0.01})
    (line,) = advice(search(), train(), slower)
    assert "not faster" in line
    worse = replace(slower, floats={"bytes": 10**6, "ratio": 0.6, "error": 0.01}, top1=0.88)
    (line,) = advice(search(), train(), worse)
    assert "int8 alone costs 2.0 points" in line
    assert advice(search(), train(), replace(worse, top1=0.895)) == ()


def test_pages_show_it() -> None:
    trained, exported = lost(30.0)
    made = document(report(trained=trained, exported=exported))
    text, lines = page(made), markdown(made)
    assert 'class="verdict missed">ACCURACY LOST' in text
    assert 'class="verdict kept">Budget met' in page(document(report(trained=train(), exported=export())))
    for step in made.advice:
        assert f"<code>{step.split('`')[1]}</code>" in text
        assert step.split("`")[1] in lines
