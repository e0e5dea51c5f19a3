"""Splits are stratified, disjoint, complete and repeatable."""

from __future__ import annotations

import pytest
import torch

from hwprune.data.datasets import Dataset, open_data
from hwprune.data.splits import split
from hwprune.data.stratify import pick
from hwprune.errors import DataError, UsageError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def test_split_is_stratified_disjoint_and_complete(digits: Dataset) -> None:
    parts = split(digits, per_class=20)
    assert torch.bincount(parts.sub_val.labels).tolist() == [20] * 10
    assert len(parts.sub_train) + 200 == len(digits.train)
    rows = [
        {i.numpy().tobytes() for i in part.tensor()} for part in (parts.sub_train, parts.sub_val, parts.test)
    ]
    assert [len(images) for images in rows] == [len(digits.train) - 200, 200, len(digits.test)]
    assert len(set.union(*rows)) == len(digits.train) + len(digits.test)
    assert parts.test is digits.test


def test_split_is_repeatable_and_seeded(digits: Dataset) -> None:
    first, again, other = (split(digits, per_class=10, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.sub_val.tensor(), again.sub_val.tensor())
    assert torch.equal(first.sub_train.labels, again.sub_train.labels)
    assert not torch.equal(first.sub_val.tensor(), other.sub_val.tensor())


def test_classes_with_too_few_images_are_told(digits: Dataset) -> None:
    with pytest.raises(DataError) as caught:
        split(digits, per_class=143)
    assert "has 139" in str(caught.value)
    assert "of 10 classes" in str(caught.value)
    smallest = int(torch.bincount(digits.train.labels).min())
    assert len(split(digits, per_class=smallest - 1).sub_val) == 10 * (smallest - 1)


def test_split_needs_images(digits: Dataset) -> None:
    with pytest.raises(UsageError, match="each class"):
        split(digits, per_class=0)


def test_pick_takes_the_counts_asked_for_of_each_class() -> None:
    labels = torch.tensor([2, 0, 0, 2, 2, 0, 2, 2])
    picked, left = pick(labels, [1, 0, 3], seed=0)
    assert torch.bincount(labels[picked], minlength=3).tolist() == [1, 0, 3]
    assert sorted([*picked.tolist(), *left.tolist()]) == list(range(8))
    drawn = {tuple(pick(labels, [1, 0, 3], seed=seed)[0].tolist()) for seed in range(40)}
    assert len(drawn) > 10
