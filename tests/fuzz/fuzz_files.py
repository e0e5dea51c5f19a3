"""Readers of what hwprune writes: settings, profiles, tables, plans, results, journals, spaces, weights."""

from __future__ import annotations

import functools
import json
import zipfile
from typing import TYPE_CHECKING, Any

import fuzz_seeds as seeds
import torch
from fuzz_harness import Reader
from fuzz_mutator import bad_bytes, bad_json, bad_toml, entry_line, sealed
from safetensors.torch import save

from hwprune import artifacts
from hwprune.config import Config, load_config, save_config
from hwprune.errors import ArtifactError
from hwprune.evolution.journal import Journal as SearchJournal
from hwprune.latency import compare
from hwprune.latency.folder import TableFolder
from hwprune.latency.plan import Plan
from hwprune.latency.records import Journal
from hwprune.latency.staircase import Staircase
from hwprune.latency.width_sweep import Inversion, WidthCurve, WidthSweep
from hwprune.logbook import Logbook
from hwprune.pruningnet.outcomes import Outcomes
from hwprune.report import html
from hwprune.report.build import document
from hwprune.report.facts import Report
from hwprune.report.markdown import markdown
from hwprune.report.standing import MAX_DROP, advice, met, standing
from hwprune.report.verdict import rows, verdict
from hwprune.results import ExportResult, FrontResult, ProfileResult, SearchResult, TrainResult
from hwprune.runtimes.profiles import load_profile
from hwprune.searching.device_speed import KIND, SCHEMA_VERSION, Speeds
from hwprune.structure.space import SearchSpace
from hwprune.training.checkpoint import load_checkpoint, save_checkpoint
from hwprune.training.history import EpochFigures, History
from hwprune.training.optimiser import Optimiser
from hwprune.training.settings import TrainSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from random import Random

_FORGED = 0.75  # share of JSON inputs whose checksum is right: the others end at it
_PROFILE = b"""device = "cpu"
runtime = "onnxruntime"
precision = "fp32"
batch = 1
threads = 1

[options]
graph_optimization = "all"
spinning = "brief"
denormal_as_zero = false
"""
_STAIRCASE = Staircase(channels=(32, 40, 48), latency_ms=(1.0, 1.5, 2.0), error_ms=(0.1,) * 3, multiple=8)
_CURVES = WidthSweep(
    curves=(
        WidthCurve(group="0", widths=(8, 16), network_ms=(1.0, 2.0), layers_us={"0.weight": (500.0, 900.0)}),
    ),
    inversions=(Inversion(group="0", narrow=8, wide=16, around="chosen", predicted_percent=-3.0),),
)


def at(name: str, load: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """A reader of one file of a name."""

    def read(sandbox: Path, content: bytes) -> object:
        path = sandbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return load(path)

    return read


def bad_artifact(rng: Random, content: bytes) -> bytes:
    """A JSON artifact with damaged bytes, or with another payload under a right checksum."""
    if rng.random() > _FORGED:
        return bad_bytes(rng, content)
    file = json.loads(content)
    return sealed(file["kind"], file["schema_version"], bad_json(rng, file["payload"]), rng)


def _written(sandbox: Path, name: str, write: Callable[[Path], object]) -> bytes:
    path = sandbox / name
    write(path)
    content = path.read_bytes()
    path.unlink()
    return content


def _json(name: str, load: Callable[[Path], object], *contents: bytes) -> Reader:
    return Reader(name=name, seeds=contents, mutate=bad_artifact, read=at("file.json", load))


def _result(kind: type[Any], sandbox: Path) -> Reader:
    (one,) = (result for result in seeds.results() if type(result) is kind)
    return _json(kind.kind, lambda path: _used(kind.load(path)), _written(sandbox, "x.json", one.save))


def _used(result: Any) -> None:
    """What every user of a result does with it: whatever was loaded must allow that."""
    for one in getattr(result, "figures", ()):
        one.text(one.value), one.title, one.met, one.high_use
    for point in getattr(result, "points", ()):
        _used(point)
    if isinstance(result, SearchResult):
        _reported(result)
    repr(result)


def _reported(found: SearchResult) -> None:
    """The report of it, without the megabytes of the library that draws."""
    missing = dict.fromkeys(("profile", "train", "export", "staircase", "curves", "front"))
    made = document(
        Report(
            search=found,
            met=met(found, None),
            standing=standing(found, None, None),
            advice=advice(found, None, None),
            max_drop=MAX_DROP,
            verdict=verdict(found, None, None),
            rows=rows(found, None, None),
            layers=(),
            commands=(found.command,),
            settings="",
            **missing,
        )
    )
    markdown(made).encode()
    for section in made.sections:
        html._section(section).encode()


def _bad_table(rng: Random, content: bytes) -> bytes:
    """One of a table's files, damaged; `table.json` mostly with right checksums."""
    files = {name: bytes.fromhex(text) for name, text in json.loads(content).items()}
    name = rng.choice(sorted(name for name in files if "/" not in name))
    files[name] = bad_artifact(rng, files[name]) if name.endswith(".json") else bad_bytes(rng, files[name])
    if name.endswith(".csv") and rng.random() < _FORGED:
        table = json.loads(files["table.json"])["payload"]
        table["checksums"][name.removesuffix(".csv")] = artifacts.sha256(files[name])
        files["table.json"] = sealed("latency-table", 2, table)
    return _packed(files)


def _packed(files: dict[str, bytes]) -> bytes:
    return json.dumps({name: content.hex() for name, content in files.items()}).encode()


def _read_table(sandbox: Path, content: bytes) -> None:
    try:
        files = {name: bytes.fromhex(text) for name, text in json.loads(content).items()}
    except (ValueError, AttributeError, TypeError):  # the file of another reader, in the place of table.json
        files = {"table.json": content}
    for name, inside in files.items():
        if "/" not in name:
            (sandbox / name).write_bytes(inside)
    folder = TableFolder.load(sandbox)
    compare.summary(folder)


def _read_records(sandbox: Path, content: bytes) -> None:
    files = seeds.table_files()
    session = json.loads(files["networks/session.json"])["payload"]
    (sandbox / "session.json").write_bytes(files["networks/session.json"])
    (sandbox / "network-00000.json").write_bytes(content)
    if not Journal(sandbox, session).load():
        raise ArtifactError("The record is left out, and its network is measured again.")


def _read_session(sandbox: Path, content: bytes) -> object:
    session = json.loads(seeds.table_files()["networks/session.json"])["payload"]
    (sandbox / "session.json").write_bytes(content)
    return Journal(sandbox, session)


def _bad_plan(rng: Random, content: bytes) -> bytes:
    """A plan with damaged bytes, or with another header or network under right checksums."""
    if rng.random() > _FORGED:
        return bad_bytes(rng, content)
    import io

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        base, header = archive.read("base.onnx"), json.loads(archive.read("header.json"))
    payload = header["payload"]
    if rng.random() < 0.1:
        base = bad_bytes(rng, base)
        payload["files"]["base.onnx"] = artifacts.sha256(base)
    else:
        payload["content"] = bad_json(rng, payload["content"])
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("header.json", sealed("profile-plan", 1, payload, rng))
        archive.writestr("base.onnx", base)
    return made.getvalue()


def _plan(sandbox: Path) -> Reader:
    plan = Plan.draw(seeds.space(), seeds.onnx_bytes(), seeds.PROFILE, count=8, max_seconds=1.0)
    content = _written(sandbox, "p.hwplan", plan.save)

    def load(path: Path) -> None:
        found = Plan.load(path)
        found.chosen(found.space.with_choices(8))

    return Reader(name="plan", seeds=(content,), mutate=_bad_plan, read=at("p.hwplan", load))


def _search_state(sandbox: Path) -> Reader:
    search = {"identity": "x", "seed": 0, "groups": [["0", "8 16"], ["3", "8 16 24"]], "starts": []}
    facts = {"factors": {"fake": 1.01}, "measured": {"8 8": {"fake": 1.5}}, "errors": {}, "refitted": []}
    one = {"asked": ["8 8", "16 24"]}
    entries = (one, {"score": 0.5}, {"score": 0.25}, {"closed": facts}, one, {"score": 0.5})
    return Reader(
        name="search-state",
        seeds=(_logbook(sandbox, "search-state", 2, search, entries),),
        mutate=_bad_logbook,
        read=at("file.jsonl", lambda path: SearchJournal(path, search)),
    )


def _evaluations(sandbox: Path) -> Reader:
    stops = (12, 24)
    parts = [{"network": net, "images": 12, "figures": "/vA="} for net in ("8 16", "8 24", "8 16")]

    def load(path: Path) -> None:
        if not len(Outcomes(stops, path)):
            raise ArtifactError("The file is left out, and its candidates are evaluated again.")

    return Reader(
        name="evaluations",
        seeds=(_logbook(sandbox, "evaluations", 4, {"stops": list(stops), "of": ""}, parts),),
        mutate=_bad_logbook,
        read=at("file.jsonl", load),
    )


def _logbook(
    sandbox: Path, kind: str, version: int, head: dict[str, Any], entries: Iterable[dict[str, Any]]
) -> bytes:
    def write(path: Path) -> None:
        book = Logbook(path, kind, version, head)
        for entry in entries:
            book.add(entry)

    return _written(sandbox, "x.jsonl", write)


def _bad_logbook(rng: Random, content: bytes) -> bytes:
    """A logbook with damaged bytes, or with other, missing or moved entries under right checksums."""
    if rng.random() > _FORGED:
        return bad_bytes(rng, content)
    entries = bad_json(rng, [json.loads(line)["entry"] for line in content.splitlines()])
    return b"".join(entry_line(entry, rng) for entry in entries)


def _bad_tensors(rng: Random, content: bytes) -> bytes:
    """A safetensors file with damaged bytes, or with another header or info under a right checksum."""
    if rng.random() < 0.5:
        return bad_bytes(rng, content)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if rng.random() < 0.5:
        text = json.dumps(bad_json(rng, header)).encode()
        size = rng.choice((len(text), len(text), 2**63, 2**40, 0, len(text) + 1))
        return size.to_bytes(8, "little") + text + content[8 + length :]
    from safetensors.torch import load

    tensors, meta = load(content), header["__metadata__"]
    if rng.random() < 0.3:
        name = rng.choice(sorted(tensors))
        tensors[name] = rng.choice(
            (torch.zeros(0), tensors[name].double(), tensors[name][None], torch.tensor(1))
        )
    info = json.dumps(bad_json(rng, json.loads(meta["info"])))
    meta = {**meta, "info": info, "checksum": artifacts._tensor_digest(tensors, info)}
    return save(tensors, {key: str(value) for key, value in meta.items()})


def _checkpoint(sandbox: Path) -> Reader:
    module, settings = seeds.network(), TrainSettings(epochs=2)
    identity, optimiser = {"seed": 0, "recipe": settings.fingerprint()}, Optimiser(module, settings)
    optimiser.step(module(torch.zeros(4, 3, 8, 8)).sum(), 0.1)
    history = History((EpochFigures(epoch=1, loss=1.0, top1=0.5, lr=0.1, seconds=1.0),))
    content = _written(
        sandbox, "c.safetensors", lambda path: save_checkpoint(path, module, optimiser, history, identity)
    )
    return Reader(
        name="checkpoint",
        seeds=(content,),
        mutate=_bad_tensors,
        read=at("c.safetensors", lambda path: load_checkpoint(path, module, optimiser, identity)),
    )


@functools.cache
def _files() -> dict[str, bytes]:
    return seeds.table_files()


def readers(sandbox: Path) -> list[Reader]:
    """All of them; seeds are written in the sandbox first."""
    files = _files()
    config = _written(sandbox, "hwprune.toml", lambda path: save_config(path, Config()))
    curves = _written(sandbox, "x.json", _CURVES.save)
    steps = sealed("staircase", 3, {**vars(_STAIRCASE), "device": {}, "runtime": {}, "settings": {}})
    return [
        Reader(name="config", seeds=(config,), mutate=bad_toml, read=at("hwprune.toml", load_config)),
        Reader(name="profile", seeds=(_PROFILE,), mutate=bad_toml, read=at("p.toml", load_profile)),
        Reader(name="latency-table", seeds=(_packed(files),), mutate=_bad_table, read=_read_table),
        _plan(sandbox),
        _checkpoint(sandbox),
        *(
            _result(kind, sandbox)
            for kind in (ProfileResult, SearchResult, FrontResult, TrainResult, ExportResult)
        ),
        _json("search-space", SearchSpace.load, files["space.json"]),
        _json("width-curves", WidthSweep.load, curves),
        _json("staircase", lambda path: Staircase.load(path).inversions(), steps),
        _search_state(sandbox),
        _evaluations(sandbox),
        Reader(
            name="device-speeds",
            seeds=(_logbook(sandbox, KIND, SCHEMA_VERSION, {}, [{"table": "abc", "speed": 1.25}]),),
            mutate=_bad_logbook,
            read=at("speeds.jsonl", Speeds),
        ),
        Reader(
            name="latency-network",
            seeds=(files["networks/network-00000.json"],),
            mutate=bad_artifact,
            read=_read_records,
        ),
        Reader(
            name="latency-session",
            seeds=(files["networks/session.json"],),
            mutate=bad_artifact,
            read=_read_session,
        ),
    ]
