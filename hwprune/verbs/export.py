"""`hwprune export`: write the ONNX file, check it against torch, measure it on the device."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hwprune
from hwprune import artifacts
from hwprune.errors import HwpruneError, MismatchError, UsageError
from hwprune.progress import QUIET, Reporter
from hwprune.project.folder import Project, is_onnx
from hwprune.project.integer import beside_floats, lowered
from hwprune.project.lock import locked
from hwprune.project.network import prepared
from hwprune.results import ExportResult, acceptance
from hwprune.runtimes.base import TargetProfile
from hwprune.units import parse_latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from hwprune.results import Figure, SearchResult

# (relative error, most seconds) of a look at the file. A budget in milliseconds depends on the speed of the
# hour: a first look that finds the file over its budget is followed by a longer one, which stands.
_LOOKS = ((0.005, 10.0), (0.002, 30.0))


@locked
def export(
    *,
    project: Path = Path("."),
    onnx: bool = True,
    int8: bool = False,
    calibration: Path | None = None,
    output: Path = Path("pruned.onnx"),
    point: int = 0,
    reporter: Reporter = QUIET,
) -> ExportResult:
    """Write one ONNX file, weights inside; check it against torch and measure it on every device at hand.

    A file that was measured over its budget is written too; the command then ends with exit code 1.

    Args:
        project: The project folder.
        onnx: Export to ONNX, the one format there is.
        int8: Quantise the network statically to 8-bit integers, whatever the profile's number format is; it
            is scored, measured beside the same network in 32-bit floats, and what that won and lost is told.
        calibration: A folder of images without labels that decide the scales of integers; by default 256
            training images do.
        output: The file to write, relative to the project folder.
        point: Number of a network of the front that was searched for, from 1; 0 keeps the chosen one.
        reporter: Told about progress.

    Returns:
        What was measured; the file's metadata holds it too.

    Raises:
        ArtifactError: `hwprune search` (or, with images, `hwprune train`) has not been run here.
        ModelError: The file computes something else than torch.
        UsageError: Another format was asked for, or a point that the front has not.
    """
    if not onnx:
        raise UsageError("There is no other format than ONNX.", got="--no-onnx", allowed="--onnx")
    opened = Project(project)
    found = opened.point(point) if point else opened.searched()
    target = TargetProfile.from_payload(found.target, where=found.profile)
    target = replace(target, precision="int8") if int8 else target
    if calibration and target.precision != "int8":
        raise UsageError("--calibration serves 8-bit integers.", got=calibration, do="add --int8")
    model = None
    if is_onnx(opened.config.model.name):
        content, facts = _sliced(opened, found, target)
    else:
        model, facts = _network(opened, found)
        from hwprune.exporter import TOLERANCE, checked_onnx

        shape = (target.batch, *opened.input_shape)
        content, difference = checked_onnx(model, shape)
        facts |= {"max_difference": difference, "tolerance": TOLERANCE}
    floats = content
    if target.precision != "fp32":
        content, facts["calibration"] = lowered(opened, target, content, calibration, reporter)
        facts["top1"] = _scored(opened, model, target, content) if facts["top1"] is not None else None
    if point:
        opened.choose(found)  # now that there is something to export
    figures = [_measured(opened, found, one, content, target.precision, reporter) for one in found.figures]
    if target.precision != "fp32":
        latency = next(one for one in figures if one.unit == "ms")
        facts["floats"] = beside_floats(opened, latency, target.precision, content, floats, reporter)
    content = _with_metadata(opened, content, found, figures, facts["top1"])
    figures = [_sized(one, len(content)) for one in figures]
    result = ExportResult(
        file=str(output),
        bytes=len(content),
        precision=target.precision,
        digest=artifacts.sha256(content),
        widths=found.widths,
        profile=found.profile,
        figures=tuple(figures),
        within_budget=all(_kept(found, one) for one in figures),
        structure=found.structure,
        metric=opened.metric,
        slow=_slow(opened, found, target, content),
        **facts,
    )
    artifacts.write_bytes(opened.folder / output, content)
    result.save(opened.path("export.json"))
    return result


def _sliced(opened: Project, found: SearchResult, target: TargetProfile) -> tuple[bytes, dict[str, Any]]:
    """The network cut out of the project's ONNX file, with its weights: no torch model to compare it with."""
    from hwprune.structure.onnx_slice import slice_onnx

    content = slice_onnx(
        prepared(opened.config.model.name), opened.searched_space(), found.widths, batch=target.batch
    )
    facts = {"weights": "of the file", "top1": None, "trained_top1": None}
    return content, {**facts, "max_difference": 0.0, "tolerance": 0.0}


def _network(opened: Project, found: SearchResult) -> tuple[nn.Module, dict[str, Any]]:
    """The pruned network, where its weights come from, and their accuracy."""
    from hwprune.structure.prune import prune

    model = prune(opened.new_model(), opened.searched_space(), found.widths)
    if not opened.config.data.given:
        weights = "given" if opened.given else "random"
        return model.eval(), {"weights": weights, "top1": None, "trained_top1": None}
    tensors, info = opened.load_network("pruned", "hwprune train")
    if tuple(info["widths"]) != found.widths:
        raise MismatchError(
            "The trained network is that of an earlier search.",
            where=opened.path("pruned.safetensors"),
            do="run `hwprune train` for the chosen network, with --point N for one of a front",
        )
    model.load_state_dict(tensors)
    top1 = float(info["top1"])
    return model.eval(), {"weights": "trained", "top1": top1, "trained_top1": top1}


def _scored(opened: Project, model: nn.Module | None, target: TargetProfile, content: bytes) -> float:
    """The metric of the file itself on test: another network than the trained one, by its rounded weights."""
    import torch

    from hwprune.exporter import FileNetwork
    from hwprune.training.evaluation import evaluate
    from hwprune.training.task import CLASSIFICATION

    with torch.inference_mode():
        outputs = model(torch.zeros(1, *opened.input_shape)) if model is not None else None
    file, task = FileNetwork(content, target.batch, outputs), opened.task or CLASSIFICATION
    return evaluate(file, opened.splits.test, target.batch, task=task)


def _measured(
    opened: Project,
    found: SearchResult,
    figure: Figure,
    content: bytes,
    precision: str,
    reporter: Reporter,
) -> Figure:
    """The figure of the file: a latency is measured anew, interleaved with the unpruned network."""
    from hwprune.latency.device import Device

    if figure.unit != "ms" or not figure.is_measured:
        return figure
    profiled = opened.profiled(figure.name)
    target = TargetProfile.from_payload(profiled.target, where=figure.name)
    with contextlib.suppress(HwpruneError):  # what would be chosen now cannot, or need not, be told
        chosen, why = opened.choice()
        if why and chosen.name == target.name:
            reporter.note(why)
    reporter.note(f"Measuring the exported file on {target.name}.")
    device = Device(opened.base_onnx(target.name), opened.space(target.name), target)
    for relative_error, seconds in _LOOKS:
        measured, base_ms = device.onnx(
            content, precision=precision, relative_error=relative_error, max_seconds=seconds
        )
        limit = parse_latency(figure.budget).of(base_ms) if figure.budget else None
        here = replace(figure, measured=measured.ms, error=measured.error_ms, base=base_ms, limit=limit)
        if _kept(found, here):
            break
    return here


def _kept(found: SearchResult, figure: Figure) -> bool:
    """Whether a figure of the file keeps its budget."""
    if figure.limit is None:
        return True
    # the unpruned network against a budget of 100 % of itself: equal, but for the error of both
    relative = figure.budget.endswith("%")
    itself = found.base_meets_budget and relative
    return figure.keeps(-acceptance.BENCH if itself else acceptance.EXPORT)


def _latency_facts(latency: Figure) -> dict[str, str]:
    """The latency on the first device; a prediction never goes by the name of a measurement."""
    base = {"hwprune.base_ms": f"{latency.base:.6g}"}
    if latency.measured is None:
        predicted = {"hwprune.predicted_ms": f"{latency.predicted:.6g}"}
        return {**base, **predicted, "hwprune.latency": "predicted, not measured"}
    measured = {"hwprune.measured_ms": f"{latency.measured:.6g}", "hwprune.error_ms": f"{latency.error:.2g}"}
    return {**base, **measured, "hwprune.latency": "measured"}


def _accuracy_facts(opened: Project, score: float) -> dict[str, str]:
    """The score on test, with what others need to find it too."""
    if opened.own_task:
        return {"hwprune.score": f"{score:.6g}", "hwprune.metric": opened.metric}
    return {
        "hwprune.top1": f"{score:.6g}",
        "hwprune.normalisation": json.dumps(opened.normalisation._asdict()),
        "hwprune.seed": json.dumps(opened.config.seed),  # decides which images were held out
        "hwprune.classes": json.dumps(opened.dataset.classes),
    }


def _slow(opened: Project, found: SearchResult, target: TargetProfile, content: bytes) -> tuple[str, ...]:
    """What makes the file slow for no reason, where its device is at hand."""
    from hwprune.latency.slow_files import slow_causes
    from hwprune.latency.table import runtime_of
    from hwprune.runtimes.registry import get_runtime

    try:
        runtime, step = get_runtime(target), opened.profiled(found.profile).channel_multiple
    except HwpruneError:  # a table from elsewhere
        return ()
    table_runtime = runtime_of(opened.table_folder(found.profile))
    return slow_causes(content, target, runtime, step=step, table_runtime=table_runtime)


def _sized(figure: Figure, size: int) -> Figure:
    return replace(figure, measured=float(size)) if figure.name == "size" else figure


def _with_metadata(
    opened: Project, content: bytes, found: SearchResult, figures: Sequence[Figure], top1: float | None
) -> bytes:
    """The file with its provenance in `metadata_props`."""
    import onnx as onnx_package

    from hwprune.environment import device_fingerprint
    from hwprune.structure.onnx_metadata import set_metadata

    model = onnx_package.load_model_from_string(content)
    facts = {
        "hwprune.version": hwprune.__version__,
        "hwprune.model": found.model,
        "hwprune.widths": json.dumps(found.widths),
        **({"hwprune.left_out": json.dumps(found.left_out)} if found.blocks else {}),
        "hwprune.budget": found.budget,
        # its own size cannot stand in a file
        "hwprune.figures": json.dumps([asdict(one) for one in figures if one.name != "size"]),
        **_latency_facts(next(one for one in figures if one.unit == "ms")),
        "hwprune.profile": found.profile,
        "hwprune.device": json.dumps(device_fingerprint(str(found.target["device"]))),
    }
    if top1 is not None:
        facts |= _accuracy_facts(opened, top1)
    set_metadata(model, facts)
    return bytes(model.SerializeToString())
