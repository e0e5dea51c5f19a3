"""The network of `hwprune bench` under other target profiles: which runtime is the fastest for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwprune.errors import DeviceError, ModelError
from hwprune.gate.result import Elsewhere
from hwprune.latency.side_by_side import side_by_side
from hwprune.runtimes.registry import get_runtime
from hwprune.structure.onnx_format import number_format
from hwprune.verbs.bench_inputs import located

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.progress import Reporter
    from hwprune.runtimes.base import Runtime, TargetProfile
    from hwprune.verbs.bench_inputs import ModelFile


def elsewhere(
    model: ModelFile,
    target: TargetProfile,
    others: Sequence[TargetProfile],
    seconds: float,
    reporter: Reporter,
) -> tuple[Elsewhere, ...]:
    """Time a network under other target profiles, interleaved with the one that was asked for.

    Args:
        model: The network.
        target: The profile that was asked for.
        others: The other ones.
        seconds: Device time for all of them together.
        reporter: Told what is measured.

    Raises:
        ModelError: A runtime refuses the network.
        DeviceError: A runtime is not here, or failed.
    """
    if not others:
        return ()
    floats = number_format(model.content) == "fp32"
    names = ", ".join(
        one.name + (f" (the file brought to {one.precision})" if floats and one.precision != "fp32" else "")
        for one in others
    )
    reporter.note(f"Measuring {model.path} on {target.name} beside {names} ...")
    runtimes = [get_runtime(one) for one in (target, *others)]
    networks = [
        (taken(model, runtime, one, always=one is not target), runtime, one)
        for runtime, one in zip(runtimes, (target, *others), strict=True)
    ]
    found = side_by_side(networks, seconds)
    told = [runtime.describe() for runtime in runtimes]
    return tuple(
        Elsewhere(
            profile=profile.name,
            runtime=f"{facts['runtime']} {facts['version'].partition('-')[0]}",
            ms=each.ms,
            error=each.relative_error,
            ratio=each.ratio,
        )
        for profile, facts, each in zip(others, told[1:], found[1:], strict=True)
    )


def taken(model: ModelFile, runtime: Runtime, target: TargetProfile, *, always: bool = False) -> bytes:
    """The network in the profile's number format, where the runtime would refuse the file as it is.

    Args:
        model: The network.
        runtime: What runs it.
        target: The profile.
        always: Whether 32-bit floats are brought to it in any case: then a profile of 8 bits times 8 bits.

    Raises:
        ModelError: It cannot be brought to that format.
        DeviceError: The runtime is not here.
    """
    wanted = target.precision if always or runtime.refuses_other_formats else "fp32"
    if wanted == "fp32" or number_format(model.content) != "fp32":
        return model.content
    try:
        return runtime.lower(model.content, target)
    except (ModelError, DeviceError) as error:
        raise located(error, model.path) from error
