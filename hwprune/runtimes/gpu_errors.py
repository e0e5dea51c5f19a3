"""What to do about a GPU that has too little memory or reports an error: the same words for all runtimes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hwprune.errors import DeviceError

if TYPE_CHECKING:
    from hwprune.runtimes.base import TargetProfile

_MEMORY = re.compile(
    r"out of memory|outofmemory|memory ?allocation|insufficient memory|failed to allocate memory"
    r"|cuda failure 2\b|bad allocation",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"illegal (memory|instruction|address)|misaligned|uncorrectable|\becc\b|device-side|\blost\b"
    r"|launch (failure|timed out)|cuda failure (214|700|702|710|716|719)\b",
    re.IGNORECASE,
)
_NO_KERNEL = re.compile(
    r"unable to find an engine|not_supported|not supported|no kernel image", re.IGNORECASE
)
_LONGEST = 300


def is_out_of_memory(text: str) -> bool:
    """Whether these are a library's words for too little memory."""
    return bool(_MEMORY.search(text))


def more_memory(profile: TargetProfile) -> str:
    """How networks under a profile come to need less memory, in order of what it costs."""
    ways = ["end other programs on the GPU (`nvidia-smi` lists them)"]
    place = f"a copy of the profile's file, profiles/{profile.name}.toml"
    if profile.options.get("buffers") == "rotating":
        ways.append(f'set `buffers = "hot"` under [options] in {place}: one copy of each network')
    if profile.batch > 1:
        ways.append(f"set `batch = 1` (it is {profile.batch}) in {place}")
    elif profile.precision == "fp32":
        ways.append("use 16-bit floats: --profile cuda-trt-fp16 or cuda-torch-fp16")
    return ", or ".join([*ways, "use a GPU with more memory"])


def out_of_memory(profile: TargetProfile, got: object, what: str = "") -> DeviceError:
    """The error for a GPU whose memory is full.

    Args:
        profile: The conditions.
        got: The library's own words.
        what: What could not be done.
    """
    return DeviceError(
        f"The GPU has too little memory for the networks that are measured together. {what}".strip(),
        where=f"profile {profile.name}, {profile.device}, batch {profile.batch}",
        got=_first(got),
        do=more_memory(profile),
    )


def gpu_failure(what: str, profile: TargetProfile, error: object) -> DeviceError:
    """The error for something that a library could not do on a GPU, with what to do by its own words.

    Args:
        what: What could not be done, one sentence.
        profile: The conditions.
        error: The library's exception or words.
    """
    text = str(error)
    if is_out_of_memory(text):
        return out_of_memory(profile, text, what)
    if _BROKEN.search(text):
        do = (
            "run the command again, it goes on where it stopped; if the error comes back, the GPU or its "
            "driver is at fault: see `nvidia-smi -q -d ECC` and `sudo dmesg | grep -i xid`"
        )
    elif _NO_KERNEL.search(text):
        do = (
            "the library has no kernel for a layer of the network in this number format: use a profile with "
            "another precision or runtime, such as --profile cuda-torch-fp32; see `hwprune doctor`"
        )
    else:
        do = "see `nvidia-smi`; `hwprune doctor` lists the runtimes that work here, --profile chooses one"
    where = f"profile {profile.name}, {profile.device}"
    return DeviceError(what, where=where, got=_first(text), do=do)


def _first(got: object) -> str:
    """What comes first says what is wrong; the rest is a stack of the library's own functions."""
    return next((line for line in str(got).splitlines() if line.strip()), "no message")[:_LONGEST]
