"""Target profiles as files: `profiles/NAME.toml`, looked for near the user first."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from hwprune import artifacts
from hwprune.errors import ConfigError, DeviceError, UsageError, nearest
from hwprune.runtimes.base import TargetProfile
from hwprune.runtimes.registry import all_runtimes
from hwprune.shipped import shipped_folders

_MAX_BYTES = 2**20
# One thread is the default: it is repeatable to a few percent even where cores are shared, and it is how a
# loaded server runs each request; `cpu` uses every core and is at the mercy of the neighbours.
_DEFAULTS = {"cpu": "cpu-1t"}
# What `--device cuda:0` means: the first of these whose runtime works here. TensorRT is what networks are
# deployed with and the fastest; torch needs nothing that is not installed anyway; ONNX Runtime needs its GPU
# package.
_GPU_DEFAULTS = {"tensorrt": "cuda-trt-fp32", "torch_cuda": "cuda-torch-fp32", "onnxruntime": "cuda-ort-fp32"}


def profile_folders() -> list[Path]:
    """Where profiles are looked for, first match wins: ./profiles, then those that come with hwprune."""
    return [Path("profiles"), *shipped_folders("profiles")]


def profile_names() -> list[str]:
    """Names of all profiles that `load_profile` finds."""
    return sorted({path.stem for folder in profile_folders() for path in folder.glob("*.toml")})


def load_profile(name: str | Path) -> TargetProfile:
    """Read a target profile.

    Args:
        name: A name (`cpu-1t`) or the path of a TOML file.

    Raises:
        UsageError: No such profile; the message names those spelt alike.
        ConfigError: Not TOML, unknown keys, or values out of range.
    """
    path = _find(str(name))
    try:
        content = tomllib.loads(artifacts.read_bytes(path, limit=_MAX_BYTES).decode())
    except (ValueError, RecursionError) as error:  # numbers of a thousand digits are no TOMLDecodeError
        raise ConfigError("The target profile is not a TOML file.", where=path, got=error) from error
    return TargetProfile.from_payload({"name": path.stem, **content}, where=path)


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    for folder in profile_folders():
        if (path := folder / f"{name}.toml").is_file():
            return path
    known = profile_names()
    raise UsageError(
        "There is no such target profile.",
        got=name,
        allowed=nearest(name, known),
        do="give one of these names, or the path of a TOML file",
    )


def default_profile(device: str) -> TargetProfile:
    """The profile that `--device` alone means; for a GPU, that of the best runtime that works here.

    Raises:
        DeviceError: An unknown device, or a GPU that no runtime can use; says what each of them lacks.
    """
    return default_choice(device)[0]


def default_choice(device: str) -> tuple[TargetProfile, str]:
    """The profile that `--device` alone means and, for a GPU, which runtime that is and why.

    Raises:
        DeviceError: As `default_profile`.
    """
    if device in _DEFAULTS:
        return load_profile(_DEFAULTS[device]), ""
    if device.partition(":")[0] == "cuda":
        return gpu_choice(device)
    raise DeviceError(
        "The device is unknown.", where="--device", got=device, allowed=", ".join((*_DEFAULTS, "cuda:0"))
    )


def gpu_choice(device: str) -> tuple[TargetProfile, str]:
    """The profile that a GPU gets by default, and why: which runtimes come first, and what they lack.

    Args:
        device: `cuda:N`; `cuda` is `cuda:0`.

    Raises:
        DeviceError: No runtime can use a GPU here; says what each of them lacks.
    """
    runtimes = {runtime.name: runtime for runtime in all_runtimes()}
    lacking: list[str] = []
    for name in (name for name in _GPU_DEFAULTS if name in runtimes):
        profile = for_gpu(load_profile(_GPU_DEFAULTS[name]), device)
        try:
            runtimes[name].check(profile)
        except DeviceError as problem:
            lacking.append(f"{name}: {problem.what} -> {problem.do}")
            continue
        passed = "".join(f" First would come {text}." for text in lacking)
        return profile, f"{profile.device} is measured by {name} (profile {profile.name}).{passed}"
    raise DeviceError(
        "No runtime can use a GPU here.",
        where="--device",
        got=device,
        do="\n           ".join(["bring what one of these lacks:", *lacking]),
    )


def for_gpu(profile: TargetProfile, device: str) -> TargetProfile:
    """The same profile for another GPU; its name says so, for each GPU has a latency table of its own."""
    index = device.partition(":")[2] or "0"
    if profile.device == f"cuda:{index}":
        return profile
    return replace(profile, device=f"cuda:{index}", name=f"{profile.name}-gpu{index}")
