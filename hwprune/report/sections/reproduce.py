"""How the result was found, on what, and what to type to find it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.report.parts import Section, Table
from hwprune.report.verdict import MISSING
from hwprune.report.words import SCORE_WORDS, START_WORDS, epochs_words, error_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.report.facts import Report
    from hwprune.results import DeviceFacts, ExportResult, ProfileResult, SearchResult, TrainResult


def found(report: Report) -> Section:
    """How it was found: a list of facts."""
    lines = [_profiled(report.profile) if report.profile else "", _searched(report.search)]
    lines += [_trained(report.train) if report.train else "", _exported(report.export)]
    return Section(title="How it was found", points=tuple(filter(None, lines)))


def _profiled(profile: ProfileResult) -> str:
    return (
        f"Latency table of {profile.profile}: {profile.networks} networks measured, {profile.kernels} "
        f"kernels, mean error on held-out networks {error_words(profile.error_percent)}, channel multiple "
        f"{profile.channel_multiple}."
    )


def _searched(search: SearchResult) -> str:
    if not search.candidates:
        return "Nothing was searched: the unpruned network keeps the budget."
    return (
        f"{len(search.candidates)} networks scored by {SCORE_WORDS[search.score_kind]} in "
        f"{len(search.history)} generations, seed {search.seed}.{epochs_words(search)}"
    )


def _trained(train: TrainResult) -> str:
    return (
        f"Trained for {train.epochs:.3g} epochs from {START_WORDS[train.start]}; unpruned network: "
        f"{train.base_source}. "
        f"Accuracy on {train.test_images} test images of {train.data}.{_normalised(train)}"
    )


def _normalised(train: TrainResult) -> str:
    if not train.mean:
        return ""
    figures = f"less {_three(train.mean)}, over {_three(train.std)}"
    return f" Images: pixels in 0..1, {figures} ({train.normalisation})."


def _three(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _exported(export: ExportResult | None) -> str:
    if export is None:
        return "Not exported yet: run `hwprune export --onnx`."
    if export.weights == "of the file":
        return "The exported file was cut out of an ONNX file: there is no torch model to compare it with."
    return (
        f"The exported file differs from torch by {export.max_difference:.1e} of the output's scale at most "
        f"(allowed {export.tolerance:.0e})."
    )


def reproduce(report: Report) -> Section:
    """Devices, versions, commands."""
    devices = tuple(_device(one, report.search) for one in report.search.devices)
    text = "With the settings below, in an empty folder. Latencies are those of this machine in its hour."
    elsewhere = [one["name"] for one in report.search.devices if not one["command"]]
    if elsewhere:
        text += f" The latency table of {', '.join(elsewhere)} came from elsewhere, and is needed too."
    files = (("hwprune.toml, the settings", report.settings),) if report.settings else ()
    return Section(
        title="Device, versions, commands",
        tables=devices,
        text=(text,),
        commands=report.commands,
        files=files,
    )


def _device(facts: DeviceFacts, search: SearchResult) -> Table:
    device, runtime, profile = facts["device"], facts["runtime"], facts["profile"]
    threads = profile.get("threads")
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    measured = search.figure(facts["name"]).is_measured
    rows = (
        ("device", _text(device.get("model") or device.get("gpu_name") or device.get("device"))),
        ("architecture", _text(device.get("architecture"))),
        ("cores", f"{_text(device.get('physical_cores'))} ({_text(device.get('cores'))} hardware threads)"),
        ("memory", f"{_text(device.get('gpu_memory_gib') or device.get('memory_gib'))} GiB"),
        ("driver", _text(device.get("gpu_driver"))),
        ("system", f"{_text(device.get('system'))}, {_text(device.get('libc'))}"),
        ("runtime", f"{_text(runtime.get('runtime'))} {_text(runtime.get('version'))}"),
        ("precision, batch", f"{_text(profile.get('precision'))}, {_text(profile.get('batch'))}"),
        ("threads", "one for each core" if threads == 0 else _text(threads)),
        ("libraries", libraries or MISSING),
        ("latency table of", _text(facts.get("date"))),
        ("networks of the search", "measured" if measured else "PREDICTED, NOT MEASURED"),
    )
    known = tuple(row for row in rows if MISSING not in row[1])
    return Table(title=f"Device and versions: {facts['name']}", head=("", ""), rows=known, words=True)


def _text(value: object) -> str:
    return MISSING if value in (None, "") else str(value)
