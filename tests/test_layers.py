"""The house rules of DESIGN that a machine can check; the contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LINT, "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def test_every_contract_is_kept(repository):
    result = lint(repository)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("evolution/problem.py", "import torch"),
        ("evolution/problem.py", "def f():\n    import torch"),
        ("evolution/problem.py", "from hwprune.runtimes import base"),
        ("structure/space.py", "from hwprune.training import loop"),
        ("structure/space.py", "from hwprune.structure import trace"),
        ("errors.py", "from hwprune import units"),
        ("latency/measure.py", "from hwprune import pruningnet"),
        ("newcomer.py", ""),
    ],
)
def test_a_broken_rule_is_caught(repository, tmp_path, module, statement):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "hwprune", tmp_path / "hwprune", ignore=ignored)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    file = tmp_path / "hwprune" / module
    text = file.read_text() if file.exists() else ""
    file.write_text(f"{text}\n{statement}\n")
    assert lint(tmp_path).returncode != 0


def modules(repository: Path) -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in sorted((repository / "hwprune").rglob("*.py"))]


def test_only_the_command_line_prints(repository):
    for path, tree in modules(repository):
        if "cli" not in path.parts:
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
            printed = [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
            assert not printed, f"{path} prints in lines {printed}"


def test_nothing_that_is_read_is_executed(repository):
    """No pickle, eval or exec, and no `torch.load` without `weights_only=True`."""
    for path, tree in modules(repository):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"} & set(names), path
            if isinstance(node, ast.Call):
                assert not (isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec")), path
                if ast.unparse(node.func) == "torch.load":
                    safe = [k for k in node.keywords if k.arg == "weights_only"]
                    assert safe, f"{path}:{node.lineno}"
                    assert ast.literal_eval(safe[0].value) is True, f"{path}:{node.lineno}"


def test_user_errors_are_never_asserts(repository):
    for path, tree in modules(repository):
        asserts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        assert not asserts, f"{path} asserts in lines {asserts}"


def test_rooms_stay_small(repository):
    """Files of at most 400 lines, functions of at most 60."""
    for path, tree in modules(repository):
        assert len(path.read_text().splitlines()) <= 400, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = [
                    line for line in node.body if not isinstance(line, ast.Expr) or line is not node.body[0]
                ]
                first = body[0].lineno if body else node.lineno
                assert (node.end_lineno or first) - first < 60, f"{path}: {node.name}"
