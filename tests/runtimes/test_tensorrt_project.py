"""profile, search and export with TensorRT above the stand-in: what a GPU's owner types, not a run on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorrt_standin import Machine, install

from hwprune import environment
from hwprune.api.export import export
from hwprune.api.profile import profile
from hwprune.api.search import search
from hwprune.cli.main import main
from hwprune.config import Config, TargetConfig, save_config
from hwprune.latency.folder import TableFolder
from hwprune.runtimes import tensorrt_cuda

GPU = {"gpu_name": "Pretended GPU", "gpu_driver": "580.1", "gpu_compute_capability": "9.0"}


@pytest.fixture(params=[10, 11])
def machine(request, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(environment, "gpus", lambda: [GPU])
    tensorrt_cuda._retained.cache_clear()
    yield install(monkeypatch, Machine(version=request.param))
    tensorrt_cuda._retained.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """ResNet-20 without images, every stage as short as it can be."""
    config = Config()
    config = replace(
        config,
        target=TargetConfig(device="cuda:0"),
        data=replace(config.data, source="", image_size=32),
        profiling=replace(config.profiling, max_seconds=20.0),
        search=replace(config.search, population=8, parents=4, mutants=4, crossovers=4, generations=3),
    )
    folder = tmp_path / "project"
    folder.mkdir()
    save_config(folder / "hwprune.toml", config)
    return folder


def test_a_budget_is_met_from_profile_to_export(machine, project, capsys):
    found = profile(project=project)
    assert found.profile == "cuda-trt-fp32"
    folder = TableFolder.load(project / "hwprune-work" / "latency" / found.profile)
    provenance = folder.table.provenance
    assert provenance["runtime"]["runtime"] == "tensorrt"
    assert provenance["settings"]["aux_streams"] == 0
    assert provenance["device"]["gpu_name"] == "Pretended GPU"
    assert {"conv", "conv+add", "linear", "reorder/conv>conv"} <= set(folder.table.kernels["op"])
    answer = search(project=project, latency="60%")
    figure = next(one for one in answer.figures if one.name == "cuda-trt-fp32")
    assert figure.measured is not None
    assert figure.met
    exported = export(project=project)
    assert exported.within_budget
    assert (project / exported.file).is_file()
    assert machine.contexts == 0
    assert main(["doctor"]) == 0
    assert "tensorrt" in capsys.readouterr().out


def test_without_a_driver_the_verb_says_what_is_missing(machine, project, capsys):
    machine.driver = False
    assert main(["profile", "--project", str(project)]) == 1
    said = capsys.readouterr().err
    assert "tensorrt: There is no NVIDIA GPU here, or no driver for it" in said
    assert "apt-get install nvidia-driver" in said
    assert "Traceback" not in said
