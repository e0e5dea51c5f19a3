"""The contract between hwprune and whatever executes a network: `TargetProfile`, `Session`, `Runtime`."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwprune.errors import ConfigError, DeviceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    OptionValue = str | int | float | bool

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_DEVICE = re.compile(r"cpu|cuda:\d+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class TargetProfile:
    """Under which conditions a network is timed. Two figures compare only when their profiles are equal.

    Attributes:
        name: Name of the profile: the stem of its TOML file.
        device: `cpu` or `cuda:N`.
        runtime: Name of a runtime in `registry`.
        precision: Number format of weights and activations.
        batch: Images in one run.
        threads: Threads that one run may use; 0 means all physical cores this process may use.
        options: Settings that only the runtime understands; it checks them.

    Raises:
        ConfigError: A value is out of range; names every such value.
    """

    name: str
    device: str = "cpu"
    runtime: str = "onnxruntime"
    precision: str = "fp32"
    batch: int = 1
    threads: int = 1
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ConfigError("The target profile is wrong:\n  - " + "\n  - ".join(problems), where=self.name)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    def _problems(self) -> list[str]:
        rules = (
            (bool(_NAME.fullmatch(self.name)), f"name: {self.name!r}; allowed: letters, digits, . _ -"),
            (
                bool(_DEVICE.fullmatch(self.device)),
                f"device: {self.device!r}; allowed: cpu, cuda:0, cuda:1 ...",
            ),
            (
                self.precision in PRECISIONS,
                f"precision: {self.precision!r}; allowed: {', '.join(PRECISIONS)}",
            ),
            (_is_count(self.batch, 1), f"batch: {self.batch!r}; allowed: 1, 2, 3 ..."),
            (
                _is_count(self.threads, 0),
                f"threads: {self.threads!r}; allowed: 1, 2, 3 ..., or 0 for all cores",
            ),
        )
        return [text for holds, text in rules if not holds]

    @property
    def thread_count(self) -> int:
        """Threads that one run uses on this machine, with 0 resolved."""
        return self.threads or physical_cores()

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device != "cpu"

    @property
    def gpu_index(self) -> int:
        """N of `cuda:N`; 0 for a CPU."""
        return int(self.device.partition(":")[2] or 0)

    def to_payload(self) -> dict[str, Any]:
        """The profile as JSON-able data; what a latency table keeps and compares."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "options": dict(self.options)}

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any], where: object = None) -> TargetProfile:
        """The profile that `to_payload` described.

        Raises:
            ConfigError: Unknown keys, values of a wrong type or out of range.
        """
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(set(payload) - set(known))
        wrong = [key for key in payload if key in known and not _has_type(key, payload[key])]
        if unknown or wrong or "name" not in payload:
            raise ConfigError(
                "A target profile has keys that are unknown or of a wrong type.",
                where=where,
                got=", ".join(unknown + wrong) or "no name",
                allowed=", ".join(known),
            )
        return cls(**payload)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _has_type(key: str, value: object) -> bool:
    if key == "options":
        return isinstance(value, dict) and all(
            isinstance(v, str | int | float | bool) for v in value.values()
        )
    return isinstance(value, int if key in ("batch", "threads") else str)


def physical_cores() -> int:
    """Physical cores that this process may use: affinity and hyper-threads taken into account."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") as file:
                cores.add(file.read().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def refuse_settings(
    runtime: str, profile: TargetProfile, options: Mapping[str, tuple[Any, ...]], precisions: Collection[str]
) -> None:
    """Refuse options and number formats that a runtime does not know.

    Args:
        runtime: Its name.
        profile: The profile.
        options: Option -> the values that it may have.
        precisions: The number formats.

    Raises:
        ConfigError: Names every such setting.
    """
    wrong = [
        f"options.{key}: {value!r}; allowed: {options.get(key, 'no such option here')}"
        for key, value in profile.options.items()
        if value not in options.get(key, ())
    ]
    if profile.precision not in precisions:
        wrong.append(f"precision: {profile.precision!r}; allowed: {', '.join(precisions)}")
    if wrong:
        raise ConfigError(
            f"The runtime {runtime} does not know this setting:\n  - " + "\n  - ".join(wrong),
            where=f"profile {profile.name}",
        )


@dataclass(frozen=True, slots=True)
class KernelTime:
    """How long one kernel took inside a run of the whole network.

    Attributes:
        tensor: The ONNX tensor that the kernel produces; for a reorder, the tensor that changes; None when
            the runtime's name for it cannot be traced back.
        op: The runtime's own name of the operation.
        reorder: Whether it only changes a memory layout or a number format.
        time_us: Median over the runs, microseconds; the profiler's own cost is taken off.
        spread_us: Half the distance between the quartiles, microseconds.
        runs: How many runs it was seen in.
    """

    tensor: str | None
    op: str
    reorder: bool
    time_us: float
    spread_us: float
    runs: int


class Session(ABC):
    """A network compiled for a device, ready to be run again and again on the same random input.

    Subclasses write `_time_runs` and may write `_settle` and `_close`.

    Attributes:
        stolen_ms: Time in which the system had given the core to other programs in the middle of a run; it is
            not counted as latency by runtimes that can tell. Over all runs since the session was made.
    """

    _closed = False
    stolen_ms = 0.0

    def time_runs(self, count: int) -> NDArray[np.float64]:
        """Run the network `count` times back to back.

        Returns:
            Milliseconds of each run: (count,).

        Raises:
            UsageError: `count` is not positive.
            DeviceError: The session was closed, or the device failed.
        """
        if count < 1:
            raise UsageError("A network must be run at least once.", got=count)
        if self._closed:
            raise DeviceError("The session was closed; nothing can be timed any more.")
        return np.asarray(self._time_runs(count), dtype=np.float64)

    def settle(self) -> None:
        """Wait until this session's idle threads no longer take cores from the next session."""
        self._settle()

    def close(self) -> None:
        """Free the device's memory and threads; closing twice is allowed."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _time_runs(self, count: int) -> NDArray[np.float64]: ...

    def _settle(self) -> None:  # noqa: B027 - an optional hook
        pass

    def _close(self) -> None:  # noqa: B027 - an optional hook
        pass


class Runtime(ABC):
    """A backend. Subclasses write the methods that start with an underscore, and `available`, `describe`."""

    name: str
    install = ""  # the command that brings what is missing
    refuses_other_formats = False  # whether `compile` takes networks in the profile's number format only

    @abstractmethod
    def available(self) -> bool:
        """Whether the backend's libraries and device are here."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Version and build of the runtime: what a table must not be mixed across."""

    def missing(self, profile: TargetProfile | None = None) -> tuple[str, str] | None:
        """What keeps the backend from working here, and the command that brings it; None when nothing does.

        Args:
            profile: What it shall serve; some backends need more for some profiles.
        """
        return None if self.available() else ("The runtime is not installed.", f"install it: {self.install}")

    def settings(self, profile: TargetProfile) -> dict[str, str | int | bool]:
        """What a profile comes down to in this runtime, defaults filled in: kept with every table."""
        return {"precision": profile.precision, "batch": profile.batch, "threads": profile.thread_count}

    def for_probes(self, profile: TargetProfile) -> TargetProfile:
        """Conditions for many small probes at a time: with one copy of each, for dozens are in memory."""
        return replace(profile, options={k: v for k, v in profile.options.items() if k != "buffers"})

    def lower(self, onnx: bytes, profile: TargetProfile, images: Sequence[NDArray[np.float32]] = ()) -> bytes:
        """A network of 32-bit floats in the profile's number format: what `compile` wants.

        Args:
            onnx: The network.
            profile: The conditions.
            images: Input batches, (N, C, H, W) each, whose ranges decide the scales of integer formats;
                random ones when there are none, which is good enough for timing.

        Raises:
            DeviceError: The runtime is not here.
            ConfigError: A number format that this runtime does not know.
            ModelError: The network cannot be brought to that format.
        """
        self.check(profile)
        return self._lower(onnx, profile, images)

    def compile(self, onnx: bytes, profile: TargetProfile) -> Session:
        """Make a session for a network with static shapes.

        Raises:
            DeviceError: The runtime is not here, or refuses the network.
            ConfigError: An option of the profile that this runtime does not know.
        """
        self.check(profile)
        return self._compile(onnx, profile)

    def profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int = 10) -> list[KernelTime]:
        """Run a network under the runtime's own profiler.

        Returns:
            One entry per kernel in execution order, layout reorders included.

        Raises:
            UsageError: `runs` is not positive.
            DeviceError: The runtime is not here, or refuses the network.
        """
        if runs < 1:
            raise UsageError("A network must be run at least once.", got=runs)
        self.check(profile)
        return self._profile_kernels(onnx, profile, runs)

    def rebuild(
        self, onnx: bytes, profile: TargetProfile, *, builds: int = 5, runs: int = 50
    ) -> NDArray[np.float64]:
        """How far builds of one network differ, where a runtime times kernels to choose them.

        Args:
            onnx: The network, lowered.
            profile: The conditions.
            builds: How many.
            runs: Runs of each.

        Returns:
            Median latency of each build, milliseconds: (builds,); (0,) where all builds are the same.

        Raises:
            DeviceError: As `compile`.
        """
        return np.empty(0)

    def check(self, profile: TargetProfile) -> None:
        """Refuse a profile that this runtime cannot serve, before any work.

        Raises:
            DeviceError: The runtime's libraries or the device are not here.
            ConfigError: An option or precision that this runtime does not know.
        """
        if (missing := self.missing(profile)) is not None:
            raise DeviceError(missing[0], where=f"runtime {self.name}", do=missing[1])
        self._check(profile)

    def check_table(self, profile: TargetProfile) -> None:  # noqa: B027 - an optional hook
        """Refuse a profile under which networks can be timed, but their kernels cannot.

        Raises:
            DeviceError: No latency table can be made under it.
        """

    def _lower(self, onnx: bytes, profile: TargetProfile, images: Sequence[NDArray[np.float32]]) -> bytes:
        return onnx

    @abstractmethod
    def _compile(self, onnx: bytes, profile: TargetProfile) -> Session: ...

    @abstractmethod
    def _profile_kernels(self, onnx: bytes, profile: TargetProfile, runs: int) -> list[KernelTime]: ...

    def _check(self, profile: TargetProfile) -> None:  # noqa: B027 - an optional hook
        pass
