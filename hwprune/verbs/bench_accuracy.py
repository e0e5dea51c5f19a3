"""The accuracy of the files that `hwprune bench` is given, on the test images of a data set."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from hwprune.errors import MismatchError, ModelError, UsageError
from hwprune.gate.result import Accuracy
from hwprune.gate.verdict import Limit, Verdict
from hwprune.payloads import digest
from hwprune.project.folder import Project
from hwprune.structure.onnx_metadata import properties
from hwprune.units import parse_percent
from hwprune.verbs.bench_inputs import located

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.data.datasets import Dataset
    from hwprune.progress import Reporter
    from hwprune.verbs.bench_inputs import Baseline, ModelFile

_IMAGE_DIMS = 4  # (N, 3, H, W)


@dataclass(frozen=True)
class Wanted:
    """What is to be known of accuracies.

    Attributes:
        data: The images, as for `hwprune init --data`; "" for none.
        limits: What the accuracy must be.
    """

    data: str
    limits: tuple[Limit, ...]


def wanted(model: Path, data: str, min_accuracy: str, max_drop: float | None, *, baseline: bool) -> Wanted:
    """What the options ask for; limits of a project folder are about its own images.

    Raises:
        UsageError: A limit that cannot be understood, without images, or without a baseline to lose against.
    """
    limits = []
    if min_accuracy:
        least = parse_percent(min_accuracy, "--min-accuracy")
        if least.value > 1:
            raise UsageError("--min-accuracy is beyond 100%.", got=min_accuracy, allowed="90%")
        text, most = least.text, 1 - least.value
        limits.append(Limit(breach=Verdict.LESS_ACCURATE, text=text, most=most, unit="errors"))
    if max_drop is not None:
        if not 0 <= max_drop <= 100:
            raise UsageError("--max-drop is not a number of points.", got=max_drop, allowed="0 to 100")
        if not baseline:
            raise UsageError(
                "--max-drop needs something to lose points against.", do="add --baseline FILE, an ONNX model"
            )
        text = f"{max_drop:g} points"
        limits.append(Limit(breach=Verdict.LESS_ACCURATE, text=text, most=max_drop, unit="points"))
    if limits and not data and model.is_dir():
        data = Project(model).config.data.source
    if limits and not data:
        raise UsageError("An accuracy needs images.", do="add --data imagefolder:ROOT")
    return Wanted(data, tuple(limits))


def accuracy(model: ModelFile, baseline: Baseline, asked: Wanted, reporter: Reporter) -> Accuracy | None:
    """Score the network and its baseline on the same test images; None where no images were named.

    Raises:
        ModelError: The network is no classifier of images.
        MismatchError: It is one of other classes, or the baseline's figures are of other images.
        DataError: The images cannot be read.
    """
    if not asked.data:
        return None
    dataset = _opened(model, asked.data)
    reporter.note(f"Scoring {model.path} on {len(dataset.test)} test images of {asked.data} ...")
    test_digest = digest(dataset.classes, dataset.test.labels.tolist())
    return Accuracy(
        top1=_top1(model, dataset),
        baseline_top1=_baseline_top1(baseline, asked, test_digest),
        images=len(dataset.test),
        data=asked.data,
        test_digest=test_digest,
    )


def _baseline_top1(baseline: Baseline, asked: Wanted, test_digest: str) -> float | None:
    if baseline.model is not None:
        return _top1(baseline.model, _opened(baseline.model, asked.data))
    if baseline.figures is None:
        return None
    stored = baseline.figures.accuracy
    if stored is not None and stored.test_digest == test_digest:
        return stored.top1
    if not any(limit.unit == "points" for limit in asked.limits):
        return None
    raise MismatchError(
        "The baseline's figures have no accuracy on these images.",
        where=baseline.figures.model.file,
        got=stored.data if stored else None,
        allowed=asked.data,
        do="name the baseline's ONNX file, or measure it again with --data and --output",
    )


def _opened(model: ModelFile, data: str) -> Dataset:
    """The images as the network expects them: its size, and the normalisation that its file tells, if any."""
    from hwprune.data.datasets import open_data

    facts = properties(onnx.load_model_from_string(model.content))
    dataset = open_data(data, image_size=_side(model), seed=_noted(model, facts, "hwprune.seed", int, 0))
    classes = _noted(model, facts, "hwprune.classes", list, None)
    if classes is not None and tuple(classes) != dataset.classes:
        raise MismatchError(
            "The images are of other classes than the network's.",
            where=model.path,
            got=", ".join(dataset.classes[:10]),
            allowed=", ".join(map(str, classes[:10])),
        )
    told = _noted(model, facts, "hwprune.normalisation", dict, None)
    return dataset if told is None else dataset.normalised(*_channels(model, told))


def _side(model: ModelFile) -> int:
    """Side of the images that the network reads."""
    kind, _, rest = model.inputs[0].partition("[")
    shape = [int(size) for size in rest.rstrip("]").split(",") if size.strip()]
    if len(model.inputs) != 1 or kind != "float" or len(shape) != _IMAGE_DIMS or shape[1] != 3:
        raise ModelError(
            "An accuracy needs a network that reads images.",
            where=model.path,
            got=", ".join(model.inputs),
            allowed="one input, float[N, 3, H, W]",
        )
    if shape[2] != shape[3]:
        raise ModelError("The images are not square.", where=model.path, got=model.inputs[0])
    return shape[2]


def _noted(model: ModelFile, facts: dict[str, str], key: str, kind: type, otherwise: Any) -> Any:
    """What hwprune noted in the file; anybody may have written it."""
    if key not in facts:
        return otherwise
    try:
        value = json.loads(facts[key])
    except ValueError:
        value = None
    if type(value) is not kind:
        raise ModelError("The metadata of this file is damaged.", where=f"{model.path}, {key}")
    return value


def _channels(model: ModelFile, told: dict[str, Any]) -> tuple[Any, Any]:
    both = tuple(tuple(told.get(name, ())) for name in ("mean", "std"))
    numbers = [value for three in both for value in three]
    good = all(len(three) == 3 for three in both) and all(type(one) in (int, float) for one in numbers)
    if not good or not all(map(math.isfinite, numbers)) or min(both[1]) <= 0:
        where = f"{model.path}, hwprune.normalisation"
        raise ModelError("The metadata of this file is damaged.", where=where)
    return both[0], both[1]


def _top1(model: ModelFile, dataset: Dataset) -> float:
    from hwprune.exporter import FileNetwork
    from hwprune.training.evaluation import evaluate

    output = onnx.load_model_from_string(model.content).graph.output[0].type.tensor_type.shape.dim
    if len(output) != 2 or output[1].dim_value not in (0, len(dataset.classes)):
        raise ModelError(
            "The network does not have one output for each class of the images.",
            where=model.path,
            got=f"outputs {[one.dim_value for one in output]}",
            allowed=f"[N, {len(dataset.classes)}]",
        )
    batch = int(model.inputs[0].partition("[")[2].partition(",")[0])
    try:
        network = FileNetwork(model.content, batch)
    except ModelError as error:
        raise located(error, model.path) from error
    return evaluate(network, dataset.test, batch)
