"""Accuracy of each class in a report."""

from __future__ import annotations

from dataclasses import replace

from examples import HOSTILE, export, report, train

from hwprune.report.build import document
from hwprune.report.html import page
from hwprune.report.parts import Section
from hwprune.report.sections.classes import classes
from hwprune.results import TrainResult


def section(trained: TrainResult | None) -> Section:
    return classes(report(trained=trained, exported=export()))


def test_every_class_has_both_accuracies() -> None:
    made = section(train())
    (plot,) = made.plots
    assert plot.table.rows == (
        ("ant", "200", "97.5%", "95.0%", "-2.5 points"),
        ("bee", "200", "89.0%", "90.0%", "+1.0 points"),
        (HOSTILE, "100", "82.0%", "80.0%", "-2.0 points"),
    )
    assert made.points == (f"Lowest accuracy: {HOSTILE}, 80.0%.", "Lost most: ant, 2.5 points.")


def test_the_matrix_has_shares_of_each_class() -> None:
    (plot,) = section(train()).plots
    assert plot.data[0]["z"] == [[95.0, 5.0, 0.0], [0.0, 90.0, 10.0], [20.0, 0.0, 80.0]]
    (pairs,) = section(train()).tables
    assert pairs.rows[0][1:] == (HOSTILE, "20", "10.0%")
    assert pairs.rows[1] == (HOSTILE, "ant", "20", "20.0%")
    assert len(pairs.rows) == 3
    assert "<img src=x" not in page(document(report(trained=train())))


def test_of_many_classes_the_worst_are_named() -> None:
    names = tuple(f"class {k}" for k in range(100))
    cells = tuple((k, k, 9) for k in range(99)) + tuple((k, 99 - k, 1) for k in range(99))
    many = replace(train(), classes=names, confusion=cells, base_confusion=cells)
    made = section(many)
    assert made.plots == ()
    table, pairs = made.tables
    assert len(table.rows) == 99  # one has no test image
    assert table.folded
    assert len(pairs.rows) == 20


def test_it_says_why_there_is_nothing() -> None:
    assert "has not been trained" in section(None).text[0]
    old = replace(train(), classes=(), confusion=(), base_confusion=())
    assert "earlier version" in section(old).text[0]
