"""A plan: all that a target device without torch needs to measure a model, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hwprune import artifacts
from hwprune.errors import ArtifactError, ConfigError
from hwprune.latency.bench import ROUND, Planned, is_held_out
from hwprune.latency.sampling import planned
from hwprune.runtimes.base import TargetProfile
from hwprune.structure import space_file
from hwprune.structure.space import SearchSpace

if TYPE_CHECKING:
    from pathlib import Path

    from hwprune.structure.space import Widths

KIND, SCHEMA_VERSION = "profile-plan", 1
_BASE = "base.onnx"
_MADE_BY = "hwprune profile --plan"
_MOST_NETWORKS = 100_000


@dataclass(frozen=True, eq=False, kw_only=True)
class Plan:
    """What to measure, and how.

    Attributes:
        space: The search space, with the paper's raw choices.
        base_onnx: The unpruned network.
        profile: The conditions.
        networks: Widths of the networks to run, in order; one in four only judges the model.
        max_seconds: Device time after which the rest is left out.
        snap: Whether the device's channel multiple is looked for first, and all widths snapped to it.
        seed: Seed of the networks and of the order of visits.
    """

    space: SearchSpace
    base_onnx: bytes
    profile: TargetProfile
    networks: tuple[Widths, ...]
    max_seconds: float
    snap: bool = True
    seed: int = 0

    @classmethod
    def draw(
        cls,
        space: SearchSpace,
        base_onnx: bytes,
        profile: TargetProfile,
        *,
        count: int,
        max_seconds: float,
        seed: int = 0,
    ) -> Self:
        """Plan `count` networks, rounded up to whole rounds, spread over the range of latencies."""
        rounded = -(-count // ROUND) * ROUND
        networks = tuple(planned(space, number, seed) for number in range(rounded))
        return cls(
            space=space,
            base_onnx=base_onnx,
            profile=profile,
            networks=networks,
            max_seconds=max_seconds,
            seed=seed,
        )

    def chosen(self, space: SearchSpace) -> list[Planned]:
        """The networks at the nearest choices of `space`, which may be coarser than the plan's."""
        return [
            Planned(number, snapped(space, widths), is_held_out(number))
            for number, widths in enumerate(self.networks)
        ]

    def save(self, path: Path) -> None:
        """Write the plan as one file.

        Raises:
            StorageError: Full disk, no permission.
        """
        content = {
            "space": space_file.to_payload(vars(self.space)),
            "profile": self.profile.to_payload(),
            "networks": [list(widths) for widths in self.networks],
            "max_seconds": self.max_seconds,
            "snap": self.snap,
            "seed": self.seed,
        }
        artifacts.write_archive(path, KIND, SCHEMA_VERSION, content, {_BASE: self.base_onnx})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan; it is untrusted: nothing in it is executed, every figure is checked.

        Raises:
            MissingArtifactError: There is no such file.
            MismatchError: Written by another schema version.
            ArtifactError: Not a plan, damaged or inconsistent.
        """
        content, files = artifacts.read_archive(path, KIND, SCHEMA_VERSION, (_BASE,), _MADE_BY)
        try:
            space = SearchSpace(**space_file.from_payload(content["space"]))
            networks = content["networks"]
            if not 0 < len(networks) <= _MOST_NETWORKS:
                raise ValueError(f"{len(networks)} networks")
            if not 0 < float(content["max_seconds"]) < 1e9 or not isinstance(content["snap"], bool):
                raise ValueError("its time or its snapping is not possible")
            return cls(
                space=space,
                base_onnx=files[_BASE],
                profile=TargetProfile.from_payload(content["profile"], where=path),
                networks=tuple(space.check(widths) for widths in networks),
                max_seconds=float(content["max_seconds"]),
                snap=content["snap"],
                seed=int(content["seed"]) % 2**31,
            )
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ArtifactError(
                "The plan is not consistent.",
                where=path,
                got=f"{type(error).__name__}: {error}",
                do=f"make it again with `{_MADE_BY}`",
            ) from error


def snapped(space: SearchSpace, widths: Widths) -> Widths:
    """Each width at the nearest choice of its group."""
    return space.check(
        [
            min(gene.choices, key=lambda choice, width=width: (abs(choice - width), choice))  # type: ignore[misc]
            for gene, width in zip(space.genes, widths, strict=True)
        ]
    )
