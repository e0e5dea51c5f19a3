"""Runtimes: compile an ONNX model for a device, time it, and tell how long each kernel took.

One file per backend behind the two abstract classes of `base`; `registry.get_runtime` picks one for a
target profile. Vendor modules are imported inside functions, so a machine needs only what it uses.
"""

from hwprune.runtimes.base import KernelTime, Runtime, Session, TargetProfile
from hwprune.runtimes.profiles import default_profile, load_profile, profile_names
from hwprune.runtimes.registry import get_runtime

__all__ = [
    "KernelTime",
    "Runtime",
    "Session",
    "TargetProfile",
    "default_profile",
    "get_runtime",
    "load_profile",
    "profile_names",
]
