"""`import hwprune`, `hwprune --help` and all that runs on a target device start without torch."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

HEAVY = ["torch", "torchvision", "onnxruntime", "openvino", "pandas", "sklearn", "scipy", "timm"]
NO_TORCH = [
    "hwprune.config",
    "hwprune.environment",
    "hwprune.evolution",
    "hwprune.gate",
    "hwprune.latency.measure",
    "hwprune.latency.model",
    "hwprune.latency.profiler",
    "hwprune.latency.table",
    "hwprune.probe",
    "hwprune.report",
    "hwprune.results",
    "hwprune.runtimes.fake",
    "hwprune.runtimes.onnxruntime",
    "hwprune.runtimes.openvino",
    "hwprune.runtimes.registry",
    "hwprune.structure.kernels",
    "hwprune.structure.onnx_slice",
    "hwprune.structure.space",
]


def exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def run(code: str) -> str:
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def heavy_imports_of(arguments: list[str]) -> set[str]:
    """Which heavy packages a Python command imports, and that it succeeds."""
    command = [sys.executable, "-X", "importtime", *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr[-2000:]
    imported = re.findall(r"^import time:.*\|\s+(\S+)$", result.stderr, flags=re.MULTILINE)
    assert "hwprune" in imported
    return {name.partition(".")[0] for name in imported} & set(HEAVY)


def test_the_check_itself_sees_heavy_imports():
    assert "pandas" in heavy_imports_of(["-c", "import hwprune, pandas"])


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_imports_of(["-c", "import hwprune; hwprune.__version__; dir(hwprune)"]) == set()


def test_a_search_space_needs_no_torch():
    assert "torch" not in heavy_imports_of(["-c", "import hwprune; hwprune.SearchSpace"])


if exists("hwprune.cli.main"):

    def help_text(*arguments: str) -> list[str]:
        code = f"from hwprune.cli.main import main; raise SystemExit(main({list(arguments)!r}))"
        return ["-c", code]

    def test_help_loads_nothing_heavy():
        assert heavy_imports_of(help_text("--help")) == set()

    @pytest.mark.parametrize("verb", ["init", "profile", "search", "train", "export", "report"])
    def test_the_help_of_a_verb_needs_no_torch(verb):
        assert "torch" not in heavy_imports_of(help_text(verb, "--help"))


@pytest.mark.parametrize("module", [name for name in NO_TORCH if exists(name)])
def test_what_runs_on_a_target_device_needs_no_torch(module):
    assert run(f"import sys, {module}; print('torch' in sys.modules)").strip() == "False"


def test_every_public_name_loads():
    code = "import hwprune\nfor name in hwprune.__all__: print(name, getattr(hwprune, name) is not None)"
    lines = run(code).split()
    assert lines[1::2] == ["True"] * (len(lines) // 2)
    assert "trace" in lines


def test_an_unknown_name_is_an_attribute_error():
    import hwprune

    with pytest.raises(AttributeError, match="no attribute 'prunes'"):
        _ = hwprune.prunes
