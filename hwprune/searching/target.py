"""`Target`: a device and a runtime, where networks are profiled and measured. Needs no project folder."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hwprune import artifacts
from hwprune.errors import UsageError
from hwprune.latency.device import Device
from hwprune.latency.folder import TableFolder
from hwprune.latency.measure import measure
from hwprune.latency.profiler import Times, profile_space
from hwprune.latency.staircase import known_multiple
from hwprune.latency.table import STAIRCASE
from hwprune.progress import silent
from hwprune.runtimes.profiles import default_profile, for_gpu, load_profile
from hwprune.runtimes.registry import get_runtime
from hwprune.searching.latency_model import LatencyModel, kept_base
from hwprune.structure.onnx_format import number_format
from hwprune.structure.onnx_graph import parse_model, without_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from hwprune.latency.measure import Measurement
    from hwprune.progress import Progress
    from hwprune.runtimes.base import Session
    from hwprune.structure.space import SearchSpace


class Target:
    """A device under a target profile.

    Args:
        profile: Name of a target profile, such as `cpu-1t`, or the path of its TOML file; "" takes the
            default of the device.
        device: `cpu` or `cuda:N`; "" takes the profile's.

    Attributes:
        conditions: The target profile.
        runtime: What compiles and runs networks there.

    Raises:
        UsageError: There is no such profile.
        DeviceError: The device or its runtime is not here.

    Example:
        >>> target = Target("cpu-1t")
        >>> target.name, target.conditions.precision
        ('cpu-1t', 'fp32')
    """

    def __init__(self, profile: str | Path = "", device: str = "") -> None:
        if not profile:
            self.conditions = default_profile(device or "cpu")
        else:
            self.conditions = load_profile(profile)
            if self.conditions.device != "cpu" and device.startswith("cuda"):
                self.conditions = for_gpu(self.conditions, device)
            if device and self.conditions.device not in (device, f"{device}:0"):
                raise UsageError(
                    "The profile is for another device.", got=device, allowed=self.conditions.device
                )
        self.runtime = get_runtime(self.conditions)
        self.runtime.check(self.conditions)

    @property
    def name(self) -> str:
        """The target profile's."""
        return self.conditions.name

    def profile(
        self,
        model: nn.Module | bytes,
        space: SearchSpace,
        *,
        example: Tensor | Sequence[Tensor] | None = None,
        max_seconds: float = 60.0,
        max_error: float = 0.02,
        folder: Path | str | None = None,
        seed: int = 0,
        progress: Progress = silent,
    ) -> LatencyModel:
        """Measure networks of a space here, and fit a model to them.

        Args:
            model: The model that `space` was traced from, or its ONNX as bytes.
            space: What `trace` returned for it.
            example: What the model is called with, where that is not one tensor of the space's input shape.
            max_seconds: Device time to spend.
            max_error: Mean error of predictions at which to stop earlier, as a fraction.
            folder: Where the table is kept as it grows: a profile that was stopped goes on there.
            seed: Decides which networks are measured.
            progress: Called after each network.

        Returns:
            The latency model, with the device at hand. Its `space` has the choices of widths that suit the
            device: search that one.

        Raises:
            UsageError: A time or error that is not above zero.
            ModelError: The model cannot be exported.
            DeviceError: The machine is too noisy, or the runtime fails.
        """
        times = Times.of(max_seconds)
        with tempfile.TemporaryDirectory() as passing:
            kept = Path(folder or passing)
            multiple = known_multiple(kept / STAIRCASE, self.runtime, self.conditions, seconds=times.steps)
            space = space.with_choices(multiple)
            base = self.runtime.lower(self._onnx(model, space, example), self.conditions)
            table = profile_space(
                space,
                base,
                self.conditions,
                self.runtime,
                folder=kept,
                seed=seed,
                max_seconds=times.networks + times.neighbours,
                max_error=max_error,
                progress=progress,
            )
        device = Device(base, space, self.conditions)
        known = kept_base(Path(folder), table) if folder is not None else None
        if known is None:  # else a search by shares of it, which was stopped, could not go on
            measured = device.base(times.base)
            known = measured.ms, math.hypot(measured.error_ms, table.build_spread * measured.ms)
        device.base_ms = known[0]
        source = TableFolder(table, space, without_weights(base))
        found = LatencyModel.of(source, name=self.name, base=known, device=device)
        if folder is not None:
            found.save(folder)
        return found

    def _onnx(
        self, model: nn.Module | bytes, space: SearchSpace, example: Tensor | Sequence[Tensor] | None
    ) -> bytes:
        """The unpruned network as 32-bit ONNX, for the profile's batch."""
        if isinstance(model, bytes):
            from hwprune.structure.onnx_slice import OnnxSlicer

            return OnnxSlicer(model, space).slice(space.full(), batch=self.conditions.batch)
        from hwprune.structure.export import as_inputs, export_base

        if example is None:
            return export_base(model, (self.conditions.batch, *space.input_shape[1:]))
        rows = [one[:1].expand(self.conditions.batch, *one.shape[1:]) for one in as_inputs(example)]
        return export_base(model, rows)

    def measure(
        self,
        network: Path | str | bytes,
        against: Path | str | bytes | None = None,
        *,
        relative_error: float = 0.01,
        max_seconds: float = 10.0,
    ) -> Measurement:
        """Time an ONNX file here.

        Args:
            network: The file, or its content.
            against: Another one that is timed in turns with it, for `ratio`; by default its own twin.
            relative_error: Standard error to reach, as a fraction.
            max_seconds: Time for it.

        Raises:
            MissingArtifactError: There is no such file.
            ModelError: It is no ONNX file.
            DeviceError: The machine is too noisy to trust, or the runtime refuses the file.
        """
        own = _content(network)
        parse_model(own)
        other = own if against is None else _content(against)
        with self._session(own) as session, self._session(other) as reference:
            return measure(
                session, reference, relative_error=relative_error, max_seconds=max_seconds
            ).trusted()

    def _session(self, content: bytes) -> Session:
        if number_format(content) == "fp32":
            content = self.runtime.lower(content, self.conditions)
        return self.runtime.compile(content, self.conditions)


def _content(network: Path | str | bytes) -> bytes:
    return network if isinstance(network, bytes) else artifacts.read_bytes(Path(network), "hwprune.export")
