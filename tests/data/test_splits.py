"""Splits are stratified, disjoint, complete and repeatable."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hwprune.data.datasets import Dataset, open_data
from hwprune.data.splits import split
from hwprune.data.stratify import pick, shares
from hwprune.errors import DataError


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_data("digits")


def test_split_is_stratified_disjoint_and_complete(digits: Dataset) -> None:
    parts = split(digits, images=200)
    sizes = torch.bincount(digits.train.labels)
    shares = 200 * sizes / len(digits.train)
    assert (torch.bincount(parts.sub_val.labels) - shares).abs().max() < 1
    assert len(parts.sub_train) + 200 == len(digits.train)
    rows = [
        {i.numpy().tobytes() for i in part.tensor()} for part in (parts.sub_train, parts.sub_val, parts.test)
    ]
    assert [len(images) for images in rows] == [len(digits.train) - 200, 200, len(digits.test)]
    assert len(set.union(*rows)) == len(digits.train) + len(digits.test)
    assert parts.test is digits.test


def test_split_is_repeatable_and_seeded(digits: Dataset) -> None:
    first, again, other = (split(digits, images=100, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.sub_val.tensor(), again.sub_val.tensor())
    assert torch.equal(first.sub_train.labels, again.sub_train.labels)
    assert not torch.equal(first.sub_val.tensor(), other.sub_val.tensor())


def test_sub_val_is_a_fifth_of_few_images_and_enough_of_many(digits: Dataset) -> None:
    parts = split(digits)
    assert len(parts.sub_val) == round(0.2 * len(digits.train)) == 288
    assert "288 images (taken from training)" in parts.told
    assert "2.9 points" in parts.told
    many = replace(digits, train=digits.train.subset(list(range(1438)) * 20))
    assert len(split(many).sub_val) == 2500
    assert split(many).error == pytest.approx(0.01)


def test_rare_classes_have_one_image_on_both_sides(digits: Dataset) -> None:
    labels = digits.train.labels
    rare = [int(row) for row in torch.nonzero(labels == 3).flatten()[:2]]
    single = [int(torch.nonzero(labels == 4).flatten()[0])]
    common = torch.nonzero(labels == 0).flatten().tolist()
    few = replace(digits, train=digits.train.subset([*rare, *single, *common]))
    parts = split(few, images=10)
    assert torch.bincount(parts.sub_val.labels, minlength=5).tolist() == [9, 0, 0, 1, 0]
    assert torch.bincount(parts.sub_train.labels, minlength=5).tolist() == [len(common) - 9, 0, 0, 1, 1]


def test_too_few_images_are_told(digits: Dataset) -> None:
    with pytest.raises(DataError) as caught:
        split(digits, images=1429)
    assert "1 to 1428" in str(caught.value)
    assert "sub_val" in str(caught.value)
    assert len(split(digits, images=1428).sub_train) == 10
    with pytest.raises(DataError, match="add images"):
        split(replace(digits, train=digits.train.subset([0, 1])))


def test_the_users_own_part_is_sub_val_and_nothing_is_taken_from_training(digits: Dataset) -> None:
    own = digits.train.subset(range(300))
    data = replace(digits, train=digits.train.subset(range(300, 1438)), val=own, val_name="val/")
    parts = split(data)
    assert parts.sub_train is data.train
    assert parts.sub_val is own
    assert "300 images (val/)" in parts.told
    some = split(data, images=100)
    assert len(some.sub_val) == 100
    assert some.sub_train is data.train
    both = torch.bincount(own.labels), 3 * torch.bincount(some.sub_val.labels)
    assert (both[0] - both[1]).abs().max() <= 3


@pytest.mark.parametrize(
    ("sizes", "total", "leave", "expected"),
    [
        ([10, 30, 60], 10, 0, [1, 3, 6]),
        ([1, 1, 98], 10, 0, [1, 1, 8]),
        ([1, 1, 98], 10, 1, [0, 0, 10]),
        ([5, 5, 5, 5], 2, 1, [1, 1, 1, 1]),
        ([3, 3], 6, 0, [3, 3]),
        ([0, 7], 3, 1, [0, 3]),
    ],
)
def test_shares(sizes: list[int], total: int, leave: int, expected: list[int]) -> None:
    assert shares(sizes, total, leave=leave) == expected


def test_pick_takes_the_counts_asked_for_of_each_class() -> None:
    labels = torch.tensor([2, 0, 0, 2, 2, 0, 2, 2])
    picked, left = pick(labels, [1, 0, 3], seed=0)
    assert torch.bincount(labels[picked], minlength=3).tolist() == [1, 0, 3]
    assert sorted([*picked.tolist(), *left.tolist()]) == list(range(8))
    drawn = {tuple(pick(labels, [1, 0, 3], seed=seed)[0].tolist()) for seed in range(40)}
    assert len(drawn) > 10
