"""Classes named by a network, and how they are counted."""

from __future__ import annotations

import pytest
import torch

from hwprune.data.datasets import open_data
from hwprune.errors import DataError
from hwprune.training.evaluation import evaluate
from hwprune.training.predictions import confusion, predictions


def test_they_are_those_behind_the_accuracy() -> None:
    torch.manual_seed(0)
    test = open_data("digits").test
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10)).eval()
    named = predictions(model, test)
    assert len(named) == len(test)
    assert float((named == test.labels).double().mean()) == pytest.approx(evaluate(model, test))
    cells = confusion(test.labels, named)
    assert sum(images for _, _, images in cells) == len(test)
    assert sum(images for there, got, images in cells if there == got) == int((named == test.labels).sum())
    with pytest.raises(DataError):
        predictions(model, test.subset([]))


def test_a_confusion_counts_pairs() -> None:
    assert confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])) == (
        (0, 0, 1),
        (0, 1, 1),
        (1, 1, 1),
        (2, 1, 1),
    )
