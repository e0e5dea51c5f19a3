"""Batches: their shapes, order, determinism and augmentation."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hwprune.data import rand_augment
from hwprune.data.augment import Augmentation, crop_box
from hwprune.data.images import Images, LazyImages, MemoryImages
from hwprune.data.sources.base import ArraySource
from hwprune.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def memory(count: int = 50, image_size: int = 32, flip: bool = True) -> MemoryImages:
    augmentation = Augmentation(image_size=image_size, flip=flip)
    side = augmentation.stored_side
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return MemoryImages(pixels, torch.arange(count) % 5, augmentation, MEAN, STD)


def lazy(count: int = 50, image_size: int = 96, flip: bool = True) -> LazyImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 110, 130, 3), dtype=np.uint8)
    source = ArraySource(pixels, torch.arange(count) % 5, "made up")
    return LazyImages(source, Augmentation(image_size=image_size, flip=flip), MEAN, STD)


KINDS: dict[str, Callable[[], Images]] = {
    "memory 32": memory,
    "memory 96": lambda: memory(20, 96),
    "lazy 96": lambda: lazy(20),
    "lazy 32": lambda: lazy(20, 32),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def together(batches: object) -> torch.Tensor:
    return torch.cat([images for images, _ in batches])


@each_kind
def test_batches_are_normalised_float32_and_complete(make: Callable[[], Images]) -> None:
    images = make()
    batches = list(images.batches(8))
    assert [len(labels) for _, labels in batches] == [8] * (len(images) // 8) + [len(images) % 8]
    for pixels, labels in batches:
        assert pixels.dtype == torch.float32
        assert pixels.is_contiguous()
        assert labels.dtype == torch.int64
    assert torch.equal(torch.cat([labels for _, labels in batches]), images.labels)
    assert torch.equal(together(batches), images.tensor())


def test_normalisation_is_the_plain_formula() -> None:
    images = memory()
    expected = (torch.from_numpy(images._pixels) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(
        STD
    )[:, None, None]
    assert torch.allclose(images.tensor(), expected, atol=1e-5)


@each_kind
@pytest.mark.parametrize("augment", [False, True])
def test_parts_of_batches_make_the_whole_ones(make: Callable[[], Images], augment: bool) -> None:
    images = make()
    whole = list(images.batches(8, augment=augment, shuffle_seed=3))
    parts = [list(images.batches(8, augment=augment, shuffle_seed=3, part=(k, 3))) for k in range(3)]
    assert [len(labels) for _, labels in (part[0] for part in parts)] == [2, 3, 3]
    for batch, shares in zip(whole, zip(*parts, strict=True), strict=True):
        for one, pieces in zip(batch, zip(*shares, strict=True), strict=True):
            assert torch.equal(one, torch.cat(pieces))


@each_kind
@pytest.mark.parametrize("augment", [False, True])
def test_same_seed_same_batches_other_seed_other_batches(make: Callable[[], Images], augment: bool) -> None:
    images = make()
    first, again, other = (list(images.batches(8, augment=augment, shuffle_seed=s)) for s in (3, 3, 4))
    assert torch.equal(together(first), together(again))
    assert not torch.equal(together(first), together(other))
    order = torch.cat([labels for _, labels in first])
    assert not torch.equal(order, images.labels)
    assert torch.equal(order.sort().values, images.labels.sort().values)


@each_kind
def test_augmentation_changes_images_but_not_their_order(make: Callable[[], Images]) -> None:
    images = make()
    plain = list(images.batches(8, shuffle_seed=1))
    augmented = list(images.batches(8, augment=True, shuffle_seed=1))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(plain, augmented, strict=True))
    assert [a[0].shape for a in plain] == [b[0].shape for b in augmented]
    changed = (together(plain) != together(augmented)).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.9


@each_kind
def test_global_random_state_is_neither_used_nor_changed(make: Callable[[], Images]) -> None:
    images = make()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    expected = together(images.batches(8, augment=True, shuffle_seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == numpy_state
    torch.manual_seed(2)
    assert torch.equal(together(images.batches(8, augment=True, shuffle_seed=5)), expected)


@each_kind
def test_subset_reads_the_chosen_images(make: Callable[[], Images]) -> None:
    images = make()
    chosen = [7, 2, 11, 2]
    part = images.subset(chosen)
    assert part.labels.tolist() == [7 % 5, 2, 1, 2]
    assert torch.equal(part.tensor(), images.tensor()[chosen])
    nested = part.subset(torch.tensor([2, 0]))
    assert torch.equal(nested.tensor(), images.tensor()[[11, 7]])
    assert len(part.subset(np.array([], dtype=np.int64))) == 0


def test_subset_shares_the_memory() -> None:
    images = memory()
    assert np.shares_memory(images.subset([1, 2])._pixels, images._pixels)


@pytest.mark.parametrize("make", [memory, lazy])
def test_subset_out_of_range(make: Callable[[], Images]) -> None:
    with pytest.raises(IndexError):
        make().subset([3, 50])


@each_kind
def test_drop_last_and_empty(make: Callable[[], Images]) -> None:
    images = make()
    assert [len(x) for x, _ in images.batches(8, drop_last=True)] == [8] * (len(images) // 8)
    assert list(images.batches(64, drop_last=True)) == []
    empty = images.subset([])
    assert list(empty.batches(4)) == []
    assert empty.tensor().shape[0] == 0


@pytest.mark.parametrize(("batch_size", "seed"), [(0, None), (-1, 1), (4, -1)])
def test_wrong_arguments_are_told_at_once(batch_size: int, seed: int | None) -> None:
    with pytest.raises(UsageError):
        memory().batches(batch_size, shuffle_seed=seed)


def test_shifts_are_crops_of_the_padded_image_drawn_per_image() -> None:
    images = memory(200, flip=False)
    plain, shifted = images.tensor(), together(images.batches(200, augment=True, shuffle_seed=None))
    black = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)])[:, None, None]
    padded = black.expand(200, 3, 40, 40).clone()
    padded[:, :, 4:36, 4:36] = plain
    found = []
    for image, border in zip(shifted, padded, strict=True):
        places = [
            (y, x)
            for y in range(9)
            for x in range(9)
            if torch.allclose(border[:, y : y + 32, x : x + 32], image)
        ]
        assert len(places) == 1
        found.append(places[0])
    assert {y for y, _ in found} == {x for _, x in found} == set(range(9))
    assert len(set(found)) > 60  # of 81; one draw for the batch would give 1


def test_mirrors_half_of_the_images() -> None:
    augmentation = Augmentation(image_size=8, flip=True)
    ramp = np.broadcast_to(np.arange(10, 18, dtype=np.uint8), (400, 3, 8, 8))
    views = augmentation.augment(ramp, np.random.default_rng(0))
    falling = views[:, 0, 4, 3] > views[:, 0, 4, 4]
    assert 0.4 < falling.mean() < 0.6


def test_small_views_are_those_of_torchvisions_kernels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    views = Augmentation(image_size=32, flip=True).augment(pixels, np.random.default_rng(1))
    for view, image in zip(torch.from_numpy(views), torch.from_numpy(pixels), strict=True):
        padded = v2.functional.pad(image, [4])
        crops = [v2.functional.crop(padded, y, x, 32, 32) for y in range(9) for x in range(9)]
        possible = [*crops, *(v2.functional.horizontal_flip(crop) for crop in crops)]
        assert sum(torch.equal(view, candidate) for candidate in possible) == 1


def test_large_evaluation_is_the_centre_of_the_stored_square() -> None:
    augmentation = Augmentation(image_size=224, flip=True)
    assert augmentation.stored_side == 256
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 256, 256), dtype=np.uint8)
    assert np.array_equal(augmentation.evaluate(pixels), pixels[:, :, 16:240, 16:240])


def test_random_parts_lie_in_the_image_and_cover_the_published_range() -> None:
    rng = np.random.default_rng(0)
    boxes = [crop_box(140, 150, rng) for _ in range(2000)]
    for top, left, height, width in boxes:
        assert 0 <= top <= 140 - height
        assert 0 <= left <= 150 - width
    areas = [height * width / 21000 for _, _, height, width in boxes]
    assert min(areas) < 0.1
    assert max(areas) > 0.9
    assert all(0.7 < width / height < 1.4 for _, _, height, width in boxes)


@pytest.mark.parametrize(("height", "width"), [(10, 2000), (2000, 10), (1, 1)])
def test_extreme_shapes_have_a_central_part(height: int, width: int) -> None:
    for seed in range(20):
        top, left, crop_height, crop_width = crop_box(height, width, np.random.default_rng(seed))
        assert 1 <= crop_height <= height - top
        assert 1 <= crop_width <= width - left


def test_leaving_a_lazy_loop_early_stops_its_threads() -> None:
    before = threading.active_count()
    batches = lazy().batches(4)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_lazy_images_name_the_broken_one() -> None:
    class Broken(ArraySource):
        def _open(self, index: int) -> Image.Image:
            if index == 6:
                raise OSError("image file is truncated")
            return super()._open(index)

    pixels = np.zeros((10, 20, 20, 3), dtype=np.uint8)
    source = Broken(pixels, torch.zeros(10, dtype=torch.int64), "made up")
    images = LazyImages(source, Augmentation(image_size=16, flip=False), MEAN, STD)
    with pytest.raises(DataError) as caught:
        list(images.batches(4))
    assert "made up, image 6" in str(caught.value)


@pytest.mark.parametrize("side", [32, 80])
def test_rand_augment_changes_each_view_in_its_own_way_and_by_the_seed(side: int) -> None:
    augmentation = Augmentation(image_size=side, flip=True)
    stored = augmentation.stored_side
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, stored, stored), dtype=np.uint8)
    images = MemoryImages(pixels, torch.arange(40), augmentation, (0.0,) * 3, (1.0,) * 3)
    strong = images.strengthened(9)

    def views(of: MemoryImages, **options: Any) -> torch.Tensor:
        return torch.cat([batch for batch, _ in of.batches(40, augment=True, shuffle_seed=3, **options)])

    plain, changed = views(images), views(strong)
    assert changed.shape == plain.shape
    assert torch.equal(changed, views(strong))
    differing = (changed != plain).flatten(1).any(1).float().mean()
    assert differing > 0.7, "two of fourteen operations, of which one changes nothing"
    halves = [views(strong, part=(number, 2)) for number in (0, 1)]
    assert torch.equal(torch.cat(halves), changed)
    assert torch.equal(next(strong.batches(40))[0], next(images.batches(40))[0])


@pytest.mark.parametrize("number", range(14))
def test_each_operation_of_rand_augment_gives_an_image(number: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255  # nothing is left for autocontrast
    image = Image.fromarray(pixels)
    changed = [np.asarray(rand_augment.apply(image, ((number, strength),))) for strength in (-0.5, 0.5)]
    assert all(one.shape == (24, 24, 3) for one in changed)
    assert (changed[0] != np.asarray(image)).any() == (number not in (0, 12))
    signed = number in range(1, 10)
    assert (changed[0] != changed[1]).any() == signed
