"""Short runs on the CPU that is here, through ONNX Runtime. Nothing asserts on how long anything takes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest

from hwprune.cli.main import main
from hwprune.config import Config, DataConfig, load_config, save_config
from hwprune.errors import BudgetError, DeviceError
from hwprune.latency.noise import machine_noise
from hwprune.project.folder import Project
from hwprune.runtimes.profiles import load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.verbs.export import export
from hwprune.verbs.predict import predict
from hwprune.verbs.profile import profile
from hwprune.verbs.report import report
from hwprune.verbs.search import search
from hwprune.verbs.train import train

pytestmark = pytest.mark.slow

TRAIN_IMAGES, TEST_IMAGES = 5000, 1000
QUIET = 0.05  # drift of plain latencies from which on a missed budget may be the machine's fault

TINY = """
from torch import nn


def tiny(num_classes: int) -> nn.Module:
    layers, before = [], 3
    for after in WIDTHS:
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, num_classes))
"""


@contextlib.contextmanager
def unless_too_noisy() -> Iterator[None]:
    """Skip, with the tool's own words, when this machine is too busy for any latency to be trusted."""
    try:
        yield
    except DeviceError as error:
        if "noisy" not in error.what:
            raise
        pytest.skip(error.what)
    except BudgetError:
        profile = load_profile("cpu-1t")
        noise = machine_noise(get_runtime(profile), profile)
        if not noise.too_noisy and noise.drift < QUIET:
            raise
        pytest.skip(f"this machine's latencies drift by {noise.drift:.0%}")


@pytest.mark.parametrize("name", ["cpu-1t", "openvino-1t", "openvino-1t-int8"])
def test_a_model_without_images_can_be_profiled_asked_and_searched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    model = "resnet20"
    arguments = ["--project", str(tmp_path), "--profile", name, "--model", model, "--max-time", "12s"]
    if main(["profile", *arguments]) != 0:
        text = capsys.readouterr().err
        assert "too noisy" in text
        pytest.skip(text.splitlines()[-1])
    config = load_config(tmp_path / "hwprune.toml")
    assert (config.model.name, config.data.source) == (model, "")
    result = predict(project=tmp_path, uniform=("50%", "100%"))
    (_, _, half_ms, half_macs, _), (_, _, full_ms, full_macs, _) = result.rows
    assert 0 < half_ms < full_ms
    assert half_macs < full_macs
    budget_ms = 0.6 * result.base_ms
    with unless_too_noisy():
        found = search(project=tmp_path, latency=f"{budget_ms:.4f}ms", generations=3)
        exported = export(project=tmp_path)
    assert found.score_kind == "macs"
    assert found.latency.use <= 1.0
    assert found.latency.limit == pytest.approx(budget_ms, abs=1e-4)
    assert exported.weights == "random"
    capsys.readouterr()


def some_of(rows: Path, folder: Path) -> Path:
    """The first images of a data set: so many that one pass over them takes a second or two."""
    folder.mkdir()
    for part, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        table = pq.read_table(rows / f"{part}.parquet")
        pq.write_table(table.slice(0, count), folder / f"{part}.parquet")
    return folder


def test_cifar10_goes_through_every_verb(cifar10: Path, tmp_path: Path) -> None:
    images = some_of(cifar10, tmp_path / "images")
    config = Config(data=DataConfig(source=f"parquet:{images}", sub_val=100))
    config = replace(
        config,
        profiling=replace(config.profiling, max_seconds=10.0),
        pruningnet=replace(config.pruningnet, epochs=1, recalibration_images=200),
        search=replace(config.search, population=6, parents=3, mutants=3, crossovers=3, generations=2),
        training=replace(config.training, epochs=2),
        model=replace(config.model, name=few_images_model(tmp_path)),
    )
    save_config(tmp_path / "hwprune.toml", config)
    with unless_too_noisy():
        profile(project=tmp_path)
        found = search(project=tmp_path, latency="60%")
        trained = train(project=tmp_path)
        exported = export(project=tmp_path)
    assert found.latency.use <= 1.0
    assert trained.test_images == TEST_IMAGES
    assert 0.15 < trained.base_top1 < 0.95
    session = onnxruntime.InferenceSession(tmp_path / exported.file, providers=["CPUExecutionProvider"])
    test = Project(tmp_path).splits.test
    right = sum(
        int(session.run(None, {"input": images.numpy()})[0].argmax() == labels.item())
        for images, labels in test.batches(1)
    )
    assert right / len(test) == pytest.approx(trained.top1, abs=0.01)
    assert exported.within_budget
    base = onnxruntime.InferenceSession(
        Project(tmp_path).base_onnx(found.profile), one_thread(), providers=["CPUExecutionProvider"]
    )
    pruned = onnxruntime.InferenceSession(
        tmp_path / exported.file, one_thread(), providers=["CPUExecutionProvider"]
    )
    assert latency_ratio(pruned, base) <= 1.05 * exported.latency.limit / exported.latency.base
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["hwprune.widths"]) == list(found.widths)


def test_an_8_bit_network_is_profiled_searched_exported_and_scored_as_it_is(tmp_path: Path) -> None:
    config = Config(data=DataConfig(source="digits", sub_val=100))
    config = replace(
        config,
        target=replace(config.target, profile="cpu-1t-int8"),
        profiling=replace(config.profiling, max_seconds=5.0),
        search=replace(config.search, generations=2, score="macs"),
        training=replace(config.training, epochs=6),
        model=replace(config.model, name=few_images_model(tmp_path, (64, 128, 256))),
    )
    save_config(tmp_path / "hwprune.toml", config)
    with unless_too_noisy():
        profile(project=tmp_path)
        search(project=tmp_path, latency="70%")
        train(project=tmp_path)
        exported = export(project=tmp_path)
    result = report(project=tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / exported.file, providers=["CPUExecutionProvider"])
    test = Project(tmp_path).splits.test
    right = sum(
        int(session.run(None, {"input": images.numpy()})[0].argmax() == labels.item())
        for images, labels in test.batches(1)
    )
    assert exported.precision == "int8"
    assert exported.top1 == right / len(test)
    assert exported.trained_top1 is not None
    assert exported.top1 > exported.trained_top1 - 0.05
    assert exported.floats is not None
    assert exported.floats["bytes"] > exported.bytes
    assert f"test top-1 {exported.top1:.1%}" in result.verdict
    kinds = {node.op_type for node in onnx.load(tmp_path / exported.file).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    base = Project(tmp_path).base_onnx("cpu-1t-int8")
    assert {node.op_type for node in onnx.load_model_from_string(base).graph.node} >= {"DequantizeLinear"}


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def latency_ratio(pruned: onnxruntime.InferenceSession, base: onnxruntime.InferenceSession) -> float:
    """Median of the ratio of low percentiles over interleaved visits: nothing but ONNX Runtime."""
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)

    def visit(session: onnxruntime.InferenceSession) -> float:
        times = []
        for _ in range(100):
            started = time.perf_counter()
            session.run(None, {"input": image})
            times.append(time.perf_counter() - started)
        return float(np.percentile(times[5:], 25))

    return float(np.median([visit(pruned) / visit(base) for _ in range(40)]))


def few_images_model(folder: Path, widths: tuple[int, int, int] = (32, 64, 128)) -> str:
    """A user's own model file: small, so that an epoch of CIFAR-10 is short."""
    path = folder / "tiny.py"
    path.write_text(TINY.replace("WIDTHS", repr(widths)))
    return f"{path}:tiny"
