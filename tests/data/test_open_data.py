"""Each kind of data set gives the right images with the right labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from hwprune.data import datasets
from hwprune.data.datasets import Dataset, open_data
from hwprune.data.images import LazyImages, MemoryImages
from hwprune.data.splits import split
from hwprune.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

CIFAR10 = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"


def red_and_green(dataset: Dataset, images: torch.Tensor) -> torch.Tensor:
    """The first two channels of normalised images as 0..255 again, averaged over each image: (N, 2)."""
    mean, std = torch.tensor(dataset.mean)[:, None, None], torch.tensor(dataset.std)[:, None, None]
    return ((images * std + mean) * 255).mean(dim=(2, 3))[:, :2]


def check_pictures(dataset: Dataset, *, train: int, test: int, tolerance: float = 0.01) -> None:
    """Every image shows its label and its number, and each is there once."""
    for images, count in ((dataset.train, train), (dataset.test, test)):
        assert len(images) == count
        shown = red_and_green(dataset, images.tensor())
        assert torch.allclose(shown[:, 0], 40.0 * images.labels, atol=tolerance)
        pairs = {(round(red), round(green)) for red, green in shown.tolist()}
        assert len(pairs) == count


def test_digits() -> None:
    data = open_data("digits")
    assert data.classes == tuple("0123456789")
    assert (data.image_size, len(data.train), len(data.test)) == (32, 1438, 359)
    assert data.train.labels.dtype == torch.int64
    test_counts = torch.bincount(data.test.labels)
    assert (test_counts.min(), test_counts.max()) == (35, 37)
    images = data.train.tensor()
    assert images.shape == (1438, 3, 32, 32)
    assert images.mean().abs() < 0.01
    assert images.std() == pytest.approx(1, abs=0.01)
    assert torch.equal(images[:, 0], images[:, 2])


def test_digits_are_not_mirrored() -> None:
    data = open_data("digits")
    assert not data.train._augmentation.flip


def test_digits_test_part_is_fixed_and_seeded() -> None:
    first, again, other = open_data("digits"), open_data("digits"), open_data("digits", seed=1)
    assert torch.equal(first.test.tensor(), again.test.tensor())
    assert not torch.equal(first.test.labels, other.test.labels)


def test_digits_train_and_test_are_disjoint() -> None:
    data = open_data("digits")
    rows = {
        part: {image.numpy().tobytes() for image in getattr(data, part).tensor()}
        for part in ("train", "test")
    }
    assert len(rows["train"]) == len(data.train)
    assert rows["train"].isdisjoint(rows["test"])


@pytest.mark.parametrize("test_name", ["val", "test"])
def test_folder_with_a_test_part(make_folder: Callable[..., Path], test_name: str) -> None:
    root = make_folder(("train", test_name))
    (root / "train" / "ant" / "notes.txt").write_text("not an image")
    (root / "train" / "ant" / "._000.png").write_text("a hidden file that some systems leave")
    (root / "train" / ".cache").mkdir()
    data = open_data(f"imagefolder:{root}")
    assert data.classes == ("ant", "bee", "cat")
    assert data.image_size == 32
    check_pictures(data, train=30, test=30)


@pytest.mark.parametrize("name", ["val", "validation", "valid"])
def test_folder_with_a_validation_part_beside_test(make_folder: Callable[..., Path], name: str) -> None:
    data = open_data(f"imagefolder:{make_folder(('train', 'test', name))}")
    assert (data.test_name, data.val_name) == ("test/", f"{name}/")
    assert data.val is not None
    check_pictures(data, train=30, test=30)
    check_pictures(replace(data, test=data.val), train=30, test=30)
    again = data.normalised((0.5,) * 3, (0.5,) * 3)
    assert again.val is not None
    check_pictures(replace(again, test=again.val), train=30, test=30)
    rows = split(data)
    assert rows.sub_val is data.val


def test_validation_serves_as_test_where_there_is_none(make_folder: Callable[..., Path]) -> None:
    data = open_data(f"imagefolder:{make_folder(('train', 'validation'))}")
    assert (data.test_name, data.val) == ("validation/", None)


@pytest.mark.parametrize("name", ["validation", "val-00000-of-00001", "valid"])
def test_parquet_with_a_validation_part(make_parquet: Callable[..., Path], name: str) -> None:
    make_parquet("train", [0, 1, 2] * 8)
    make_parquet("values", [0, 1])
    folder = make_parquet(name, [2, 1, 0])
    data = open_data(f"parquet:{folder}")
    assert (data.test_name, data.val) == (f"{name}.parquet", None)
    make_parquet("test", [2, 1, 0, 0])
    data = open_data(f"parquet:{folder}")
    assert data.val is not None
    assert (len(data.test), len(data.val), data.val_name) == (4, 3, f"{name}.parquet")
    make_parquet("val", [2, 1, 0, 0])
    make_parquet("validation", [2, 1, 0, 0])
    with pytest.raises(DataError, match="several validation files"):
        open_data(f"parquet:{folder}")


def test_test_folder_without_classes_gives_way_to_val(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "test").mkdir()
    Image.new("RGB", (32, 32)).save(root / "test" / "unlabelled.png")
    check_pictures(open_data(f"imagefolder:{root}"), train=30, test=30)


@pytest.mark.parametrize("parts", [("",), ("train",)])
def test_folder_without_a_test_part_holds_a_fifth_out(
    make_folder: Callable[..., Path], parts: tuple[str]
) -> None:
    root = make_folder(parts)
    data = open_data(f"imagefolder:{root}")
    check_pictures(data, train=24, test=6)
    assert torch.bincount(data.test.labels).tolist() == [2, 2, 2]
    everything = torch.cat([data.train.tensor(), data.test.tensor()])
    assert len({image.numpy().tobytes() for image in everything}) == 30


def test_parquet_with_names(make_parquet: Callable[..., Path]) -> None:
    make_parquet("train", [0, 1, 2] * 8)
    folder = make_parquet("test", [2, 1, 0, 0])
    data = open_data(f"parquet:{folder}")
    assert data.classes == ("ant", "bee", "cat")
    assert data.test.labels.tolist() == [2, 1, 0, 0]
    check_pictures(data, train=24, test=4)


def test_parquet_without_names_or_test_part(make_parquet: Callable[..., Path]) -> None:
    folder = make_parquet("train", [7, 3] * 10, names=None)
    data = open_data(f"parquet:{folder}")
    assert data.classes == ("3", "7")
    assert (len(data.train), len(data.test)) == (16, 4)
    shown = red_and_green(data, data.train.tensor())[:, 0]
    red_of_3, red_of_7 = 40.0 * 3, 40.0 * 7 % 256
    expected = torch.where(data.train.labels == 0, red_of_3, red_of_7)
    assert torch.allclose(shown, expected, atol=0.01)


@pytest.mark.parametrize("label_type", ["int8", "uint16", "int32"])
def test_parquet_labels_of_other_integer_types(make_parquet: Callable[..., Path], label_type: str) -> None:
    import pyarrow as pa

    folder = make_parquet("train", [0, 1, 2] * 4, label_type=getattr(pa, label_type)())
    assert open_data(f"parquet:{folder}").train.labels.dtype == torch.int64


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"the real CIFAR-10 is not at {CIFAR10}")
def test_real_cifar10() -> None:
    data = open_data(f"parquet:{CIFAR10}")
    assert (len(data.train), len(data.test), data.image_size) == (50_000, 10_000, 32)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10
    # The figures that everyone normalises CIFAR-10 with; the JPEGs here differ a little from the originals.
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.005)
    assert data.std == pytest.approx((0.247, 0.2435, 0.2616), abs=0.005)
    images, labels = next(data.train.batches(256, augment=True, shuffle_seed=0))
    assert images.shape == (256, 3, 32, 32)
    assert len(labels.unique()) == 10


class PublishedFormat:
    """Writes CIFAR-10's published format, with few images, and the checksums that belong to them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import hashlib
        import pickle

        from torchvision import datasets as torchvision_datasets

        self.folder = root / "cifar-10-batches-py"
        self.folder.mkdir(parents=True)

        def write(name: str, content: Any) -> list[str]:
            data = pickle.dumps(content)
            (self.folder / name).write_bytes(data)
            return [name, hashlib.md5(data).hexdigest()]

        def batch(seed: int) -> dict[str, Any]:
            pixels = np.random.default_rng(seed).integers(0, 256, (6, 3072), dtype=np.uint8)
            return {"data": pixels, "labels": [0, 1, 2, 0, 1, 2]}

        train = [write(f"data_batch_{number}", batch(number)) for number in range(1, 3)]
        test = [write("test_batch", batch(9))]
        name, checksum = write("batches.meta", {"label_names": ["ant", "bee", "cat"]})
        meta = {"filename": name, "key": "label_names", "md5": checksum}
        for attribute, value in (("train_list", train), ("test_list", test), ("meta", meta)):
            monkeypatch.setattr(torchvision_datasets.CIFAR10, attribute, value)


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    written = PublishedFormat(tmp_path, monkeypatch)
    data = open_data(f"cifar10:{written.folder if inside else tmp_path}")
    assert (len(data.train), len(data.test), data.classes) == (12, 6, ("ant", "bee", "cat"))
    mean, std = torch.tensor(data.mean)[:, None, None], torch.tensor(data.std)[:, None, None]
    pixels = (data.test.tensor() * std + mean) * 255
    expected = np.random.default_rng(9).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    assert np.allclose(pixels.numpy(), expected, atol=0.01)


def test_changed_cifar10_is_refused_before_it_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = PublishedFormat(tmp_path, monkeypatch)
    (written.folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match="incomplete or changed"):
        open_data(f"cifar10:{tmp_path}")


def test_image_size_of_large_images_and_their_normalisation(make_folder: Callable[..., Path]) -> None:
    root = make_folder(count=2, side=80, height=100)
    data = open_data(f"imagefolder:{root}")
    assert data.image_size == 224
    assert data.mean == (0.485, 0.456, 0.406)
    check_pictures(data, train=6, test=6)
    small = open_data(f"imagefolder:{root}", image_size=48)
    assert small.image_size == 48
    assert small.mean != data.mean
    assert next(small.train.batches(5))[0].shape == (5, 3, 48, 48)


@pytest.mark.parametrize("lazy", [False, True])
def test_other_figures_normalise_the_same_pixels(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, lazy: bool
) -> None:
    if lazy:
        monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 1000)
    data = open_data(f"imagefolder:{make_folder(count=4)}")
    other = data.normalised((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    check_pictures(other, train=12, test=12)
    assert (other.mean, other.std) == ((0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    assert not torch.equal(other.train.tensor(), data.train.tensor())
    assert torch.equal(other.train.subset([3]).tensor()[0], other.train.tensor()[3])
    check_pictures(data, train=12, test=12)


def test_tiny_images_are_brought_to_32_pixels(make_folder: Callable[..., Path]) -> None:
    assert open_data(f"imagefolder:{make_folder(side=12, count=3)}").image_size == 32


@pytest.mark.parametrize(("image_size", "augment"), [(32, False), (32, True), (96, False)])
def test_lazy_images_are_those_in_memory(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, image_size: int, augment: bool
) -> None:
    spec = f"imagefolder:{make_folder(side=120, height=90)}"
    held = open_data(spec, image_size=image_size)
    monkeypatch.setattr(datasets, "MEMORY_LIMIT_BYTES", 1000)
    lazy = open_data(spec, image_size=image_size)
    assert isinstance(held.train, MemoryImages)
    assert isinstance(lazy.train, LazyImages)
    monkeypatch.setattr(lazy.train, "_shift", held.train._shift)
    monkeypatch.setattr(lazy.train, "_scale", held.train._scale)
    both = [list(data.train.batches(7, augment=augment, shuffle_seed=4)) for data in (held, lazy)]
    assert len(both[0]) == len(both[1]) == 5
    for (images, labels), (lazy_images, lazy_labels) in zip(*both, strict=True):
        assert torch.equal(images, lazy_images)
        assert torch.equal(labels, lazy_labels)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", 128), ("I;16", 128), ("RGBA", 128), ("P", 128), ("CMYK", 128), ("1", 255), ("LA", 128)],
)
def test_other_colour_modes_become_rgb(make_folder: Callable[..., Path], mode: str, expected: int) -> None:
    root = make_folder(count=1)
    path = root / "val" / "ant" / ("000.tif" if mode == "CMYK" else "000.png")
    (root / "val" / "ant" / "000.png").unlink()
    if mode == "I;16":
        image = Image.fromarray(np.full((32, 32), 128 * 256, dtype=np.uint16))
    elif mode == "1":
        image = Image.new("1", (32, 32), 1)
    else:
        image = Image.new("RGB", (32, 32), (128, 128, 128)).convert(mode)
    image.save(path, **({"transparency": bytes([7] * 256)} if mode == "P" else {}))
    data = open_data(f"imagefolder:{root}")
    assert red_and_green(data, data.test.tensor())[0].tolist() == pytest.approx([expected] * 2, abs=1.5)
