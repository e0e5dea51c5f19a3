"""What each weight generator needs for the paper's three networks.

    python benchmarks/generator_parameters.py

Networks are built without memory, so this takes seconds. Training needs each parameter twice, for its
momentum; gradients of large networks are never held together.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import finish

from hwprune.config import load_config
from hwprune.models.registry import build
from hwprune.project import estimators
from hwprune.structure.tied import tie
from hwprune.structure.trace import trace

if TYPE_CHECKING:
    from hwprune.pruningnet.settings import GeneratorName

PAPER = Path(__file__).parent / "paper"
GENERATORS: tuple[GeneratorName, ...] = ("fc", "residual", "shared")


def main() -> None:
    """Count, print a table, write the result file."""
    figures = {}
    print("| network | parameters | " + " | ".join(f"`{name}`" for name in GENERATORS) + " |")
    print("|---|---|" + "---|" * len(GENERATORS))
    for path in sorted(PAPER.glob("*.toml")):
        found = figures[path.stem] = count(path)
        cells = (f"{found[g] / 1e6:.1f} M, {found[g] / found['network']:.2f}x" for g in GENERATORS)
        print(f"| {path.stem} | {found['network'] / 1e6:.1f} M | {' | '.join(cells)} |")
    finish("generator_parameters", figures)


def count(path: Path) -> dict[str, Any]:
    """Parameters of a network and of its PruningNets."""
    config = load_config(path)
    model = build(config.model.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = trace(model, torch.zeros(1, 3, 224, 224), exclude=config.model.exclude)
    space = tie(space, config.model.tied)
    found = {"network": parameters(model)}
    for generator in GENERATORS:
        with torch.device("meta"):
            own = replace(config.pruningnet, generator=generator)
            net = estimators.pruningnet_of(replace(config, pruningnet=own), model, space)
        found[generator] = parameters(net)
    return found


def parameters(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
