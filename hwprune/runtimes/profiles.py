"""Target profiles as files: `profiles/NAME.toml`, looked for near the user first."""

from __future__ import annotations

import sysconfig
import tomllib
from pathlib import Path

from hwprune import artifacts
from hwprune.errors import ConfigError, DeviceError, UsageError, nearest
from hwprune.runtimes.base import TargetProfile

_MAX_BYTES = 2**20
# One thread is the default: it is repeatable to a few percent even where cores are shared, and it is how a
# loaded server runs each request; `cpu` uses every core and is at the mercy of the neighbours.
_DEFAULTS = {"cpu": "cpu-1t"}


def profile_folders() -> list[Path]:
    """Where profiles are looked for, first match wins: ./profiles, the checkout's, the installed ones."""
    return [
        Path("profiles"),
        Path(__file__).resolve().parents[2] / "profiles",
        Path(sysconfig.get_path("data")) / "share" / "hwprune" / "profiles",
    ]


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
    """The profile that `--device` alone means.

    Raises:
        DeviceError: An unknown device, or a GPU.
    """
    if device in _DEFAULTS:
        return load_profile(_DEFAULTS[device])
    if device == "cuda" or device.startswith("cuda:"):
        raise DeviceError(
            "hwprune cannot measure GPUs yet.",
            where="--device",
            got=device,
            allowed=", ".join(sorted(_DEFAULTS)),
        )
    raise DeviceError(
        "The device is unknown.", where="--device", got=device, allowed=", ".join(sorted(_DEFAULTS))
    )
