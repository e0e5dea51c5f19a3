"""profile, search and export with TensorRT above the stand-in: what a GPU's owner types, not a run on one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tensorrt_standin import Machine, install

from hwprune import environment
from hwprune.cli.main import main
from hwprune.config import Config, TargetConfig, save_config
from hwprune.latency.folder import TableFolder
from hwprune.progress import Quiet
from hwprune.runtimes import tensorrt_cuda
from hwprune.verbs.export import export
from hwprune.verbs.predict import predict
from hwprune.verbs.profile import profile
from hwprune.verbs.search import search

GPU = {"gpu_name": "Pretended GPU", "gpu_driver": "580.1", "gpu_capability": "9.0"}


PROFILES = [(10, "cuda-trt-fp32"), (11, "cuda-trt-fp16"), (11, "cuda-trt-int8")]


class Notes(Quiet):
    """Keeps what a verb tells."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)

    def tell_of_a_choice(self) -> bool:
        """Whether the user was told which runtime measures the GPU."""
        return any("is measured by tensorrt (profile cuda-trt-fp32)" in text for text in self.told)


@pytest.fixture(params=PROFILES, ids=[name for _, name in PROFILES])
def target(request) -> tuple[int, str]:
    """Version of TensorRT, and the target profile."""
    return request.param


@pytest.fixture
def machine(target, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "gpus", lambda: [GPU])
    tensorrt_cuda._retained.cache_clear()
    yield install(monkeypatch, Machine(version=target[0]))
    tensorrt_cuda._retained.cache_clear()


@pytest.fixture
def project(target, tmp_path: Path) -> Path:
    """ResNet-20 without images, every stage as short as it can be; fp32 is what a GPU gets by default."""
    config, name = Config(), target[1]
    config = replace(
        config,
        target=TargetConfig(device="cuda:0", profile="" if name == "cuda-trt-fp32" else name),
        data=replace(config.data, source="", image_size=32),
        profiling=replace(config.profiling, max_seconds=6.0),
        search=replace(config.search, population=8, parents=4, mutants=4, crossovers=4, generations=3),
    )
    folder = tmp_path / "project"
    folder.mkdir()
    save_config(folder / "hwprune.toml", config)
    return folder


def test_a_budget_is_met_from_profile_to_export(machine, target, project, capsys):
    found = profile(project=project)
    assert found.profile == target[1]
    # What is profiled is what was timed. Only two are built again: the widest probe of the staircase, its
    # reference long before it, and the small network that tries a capture, once in each runtime. And three
    # times the unpruned network, to see how far builds differ.
    assert machine.builds - len(machine.networks) <= 2 + 3
    folder = TableFolder.load(project / "hwprune-work" / "latency" / found.profile)
    provenance = folder.table.provenance
    assert provenance["runtime"]["runtime"] == "tensorrt"
    assert provenance["settings"]["aux_streams"] == 0
    medians = np.array(provenance["builds"]["median_ms"])
    assert len(medians) == 3
    assert folder.table.build_spread == pytest.approx(np.std(medians, ddof=1) / medians.mean(), rel=0.01)
    assert folder.table.build_spread > 0
    assert found.base_error_ms >= folder.table.build_spread * found.base_ms
    assert provenance["device"]["gpu_name"] == "Pretended GPU"
    assert {"conv", "conv+add", "linear", "reorder/conv>conv"} <= set(folder.table.kernels["op"])
    by_default = target[1] == "cuda-trt-fp32"
    answer = search(project=project, latency="60%", reporter=(notes := Notes()))
    assert notes.tell_of_a_choice() is by_default
    predict(project=project, reporter=(notes := Notes()))
    assert notes.tell_of_a_choice() is by_default
    figure = next(one for one in answer.figures if one.name == target[1])
    assert figure.measured is not None
    assert figure.met
    exported = export(project=project, reporter=(notes := Notes()))
    assert notes.tell_of_a_choice() is by_default
    assert exported.within_budget
    facts = onnx.load(project / exported.file).metadata_props
    (device,) = [json.loads(fact.value) for fact in facts if fact.key == "hwprune.device"]
    assert device == {"device": "cuda:0", **GPU}
    assert machine.contexts == 0
    assert not machine.live
    assert main(["doctor"]) == 0
    assert "tensorrt" in capsys.readouterr().out


@pytest.mark.parametrize("target", PROFILES[:1], indirect=True)
def test_without_a_driver_the_verb_says_what_is_missing(machine, project, capsys):
    machine.driver = False
    assert main(["profile", "--project", str(project)]) == 1
    said = capsys.readouterr().err
    assert "tensorrt: There is no NVIDIA GPU here, or no driver for it" in said
    assert "apt-get install nvidia-driver" in said
    assert "Traceback" not in said
