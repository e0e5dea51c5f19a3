"""A file in 8-bit integers: where its scales come from, and what it won and lost against 32-bit floats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hwprune.errors import UsageError
from hwprune.latency.measure import measure
from hwprune.runtimes.base import TargetProfile
from hwprune.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from hwprune.data.images import Images
    from hwprune.progress import Reporter
    from hwprune.project.folder import Project
    from hwprune.results import Figure
    from hwprune.results.rows import FloatFile
    from hwprune.training.batches import LoaderImages

_IMAGES = 256  # that decide the scales of an integer format
_LOOK = (0.005, 10.0)  # relative error, most seconds


def lowered(
    opened: Project, target: TargetProfile, content: bytes, calibration: Path | None, reporter: Reporter
) -> tuple[bytes, str]:
    """The file in the target's number format, and what its scales come from.

    Args:
        opened: The project.
        target: The target profile.
        content: The network in 32-bit floats.
        calibration: A folder of images without labels; None takes training images, if there are any.
        reporter: Told about progress.

    Raises:
        DataError: The folder has no images.
        ModelError: The network cannot be brought to that format.
        ConfigError: The runtime does not know that format.
    """
    images = _images(opened, calibration)
    if target.precision != "int8":
        source = ""
    elif images is None:
        source = "random inputs: for timing only"
    else:
        count = min(len(images), _IMAGES)
        where = f"images of {calibration}" if calibration else "training images"
        source = f"{count} {where}"
    batches = [] if images is None else list(_batches(opened, images, target.batch))
    reporter.note(f"Bringing the file to {target.precision}{f', scales from {source}' if source else ''}.")
    return get_runtime(target).lower(content, target, batches), source


def _images(opened: Project, calibration: Path | None) -> Images | None:
    from hwprune.data.datasets import open_unlabelled

    if calibration is not None and opened.own_task:
        raise UsageError(
            "A folder of images does not tell how a task of your own reads them.",
            where="--calibration",
            got=calibration,
            do="leave it out: the scales come from the task's train_loader()",
        )
    if calibration is not None:
        mean, std, _ = opened.normalisation
        return open_unlabelled(calibration, opened.image_size, mean, std)
    return opened.splits.sub_train if opened.config.data.given else None


def _batches(opened: Project, images: Images | LoaderImages, size: int) -> Iterator[NDArray[np.float32]]:
    """Images drawn at random, (size, 3, H, W) each; over again when there are fewer than a whole batch."""
    from hwprune.training.batches import LoaderImages
    from hwprune.training.task import inputs_of

    if isinstance(images, LoaderImages):
        inputs = [inputs_of(images.task, batch) for batch in images.some(_IMAGES)]
        whole = np.concatenate([one.numpy() for one in inputs])
        parts = np.split(whole, range(size, len(whole), size))
        return (np.resize(part, (size, *part.shape[1:])) for part in parts)
    drawn = np.random.default_rng(opened.config.seed).permutation(len(images))[:_IMAGES]
    whole = np.resize(drawn, -(-len(drawn) // size) * size)
    return (batch.numpy() for batch, _ in images.subset(whole).batches(size))


def beside_floats(
    opened: Project, figure: Figure, precision: str, content: bytes, floats: bytes, reporter: Reporter
) -> FloatFile:
    """The same network in 32-bit floats: its size and, where the device is at hand, its latency.

    Args:
        opened: The project.
        figure: The latency of the file on its first device.
        precision: Number format of the file.
        content: The file.
        floats: The same network in 32-bit floats.
        reporter: Told about progress.
    """
    if not figure.is_measured:
        return {"bytes": len(floats), "ratio": None, "error": None}
    own = TargetProfile.from_payload(opened.profiled(figure.name).target, where=figure.name)
    runtime = get_runtime(own)
    reporter.note(f"Measuring it beside the same network in 32-bit floats on {own.name}.")
    with (
        runtime.compile(content, replace(own, precision=precision)) as session,
        runtime.compile(floats, replace(own, precision="fp32")) as reference,
    ):
        found = measure(session, reference, relative_error=_LOOK[0], max_seconds=_LOOK[1]).trusted()
    return {"bytes": len(floats), "ratio": found.ratio, "error": found.relative_error * found.ratio}
