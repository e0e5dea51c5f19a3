"""Build a TensorRT engine: strongly typed, so that its number formats are those of the ONNX, in 10 and 11."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwprune import artifacts
from hwprune.errors import ArtifactError, DeviceError, HwpruneError, ModelError
from hwprune.runtimes.gpu_errors import is_out_of_memory, out_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwprune.runtimes.base import TargetProfile

_log = logging.getLogger(__name__)
DEFAULTS = {"optimization_level": 3, "timing_iterations": 8, "workspace_mib": 1024}
_MAX_CACHE_BYTES = 256 * 2**20
_VERSION = re.compile(
    r"version tag|serialization version|different version|compute capability|platform", re.I
)


def fresh_logger() -> Any:
    """The process's TensorRT logger, its `problems` cleared: call it where an operation begins.

    There is one only, for TensorRT itself has one: it keeps the first that it is given for as long as any
    builder or runtime lives, tells it what goes wrong with all of them, and does not keep it alive.
    """
    import tensorrt as trt

    logger = _logger_for(trt)
    logger.problems.clear()
    return logger


@functools.cache
def _logger_for(trt: Any) -> Any:
    """A logger that keeps errors in its `problems`, and passes everything on as debug messages.

    Args:
        trt: TensorRT's module.
    """

    class Collector(trt.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.problems: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            _log.debug("%s: %s", severity.name, msg)
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.problems.append(msg)

    return Collector()


def build(onnx: bytes, profile: TargetProfile, timings: bytes = b"") -> tuple[bytes, bytes]:
    """Build an engine on the current CUDA context.

    Args:
        onnx: The network, static shapes, in the number format that it shall run in.
        profile: The conditions; see `TensorRt` for its options.
        timings: A timing cache of earlier builds; one that does not fit this device or version is ignored.

    Returns:
        The serialised engine, and the timing cache with what this build added.

    Raises:
        ModelError: The network cannot be read by TensorRT's parser.
        DeviceError: TensorRT does not work on this GPU, or no engine could be built.
    """
    import tensorrt as trt

    logger = fresh_logger()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # how the bindings say that there is no builder
        raise failure("TensorRT does not start on this GPU.", logger.problems, profile) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise ModelError("TensorRT refuses the network.", got="; ".join(found or logger.problems)[:500])
    config = _config(builder, profile)
    _attach(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise failure("TensorRT could not build an engine for the network.", logger.problems, profile)
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _config(builder: Any, profile: TargetProfile) -> Any:
    import tensorrt as trt

    options = {key: int(profile.options.get(key, value)) for key, value in DEFAULTS.items()}
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: fp32 would not be fp32
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells names only
    config.builder_optimization_level = options["optimization_level"]
    config.avg_timing_iterations = options["timing_iterations"]
    config.max_aux_streams = 0  # layers one after the other, or their times overlap
    return config


def _attach(config: Any, timings: bytes) -> None:
    """Give the build its timing cache: an empty one when the old one is another device's or version's."""
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):
        _log.warning("the timing cache was made elsewhere; TensorRT starts with an empty one")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def failure(what: str, problems: Sequence[str], profile: TargetProfile) -> HwpruneError:
    """The error for something that TensorRT would not do, with its own words and what to do about them."""
    got = "; ".join(problems)[:500] or "TensorRT gave no reason"
    if is_out_of_memory(got):
        return out_of_memory(profile, got, what)
    if _VERSION.search(got):
        do = (
            "use one TensorRT that knows this GPU: pip install --upgrade tensorrt; "
            "`python -c 'import tensorrt; print(tensorrt.__version__)'` tells which one runs"
        )
    else:
        do = (
            "measure with torch, --profile cuda-torch-fp32 (`hwprune doctor` lists what works here), or try "
            "another TensorRT: pip install --upgrade tensorrt. NVIDIA's container nvcr.io/nvidia/tensorrt "
            "has trtexec, which pip's TensorRT has not: `trtexec --onnx=FILE --verbose` tells more"
        )
    return DeviceError(what, where=f"profile {profile.name}", got=got, do=do)


def cache_path(gpu: str, bus_id: str, version: str) -> Path:
    """Where the timing cache of one GPU and one version of TensorRT is kept, for this user.

    Args:
        gpu: Name of the GPU.
        bus_id: Its place in the machine, which tells two of the same name apart; only its hash is kept.
        version: Version of TensorRT.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = re.sub(r"[^A-Za-z0-9]+", "-", gpu).strip("-").lower()
    place = hashlib.sha256(bus_id.encode()).hexdigest()[:8]
    return root / "hwprune" / "tensorrt" / f"{name}-{place}-{version}.timing"


def read_timings(path: Path) -> bytes:
    """The timing cache in a file; empty when there is none that can be read."""
    try:
        return artifacts.read_bytes(path, limit=_MAX_CACHE_BYTES) if path.is_file() else b""
    except ArtifactError as error:
        _log.warning("the timing cache cannot be read, so it is made anew: %s", error)
        return b""


def write_timings(path: Path, timings: bytes) -> None:
    """Keep a timing cache; a disk that does not take it costs time later, and nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        artifacts.write_bytes(path, timings)
    except (ArtifactError, OSError) as error:
        _log.warning("the timing cache cannot be kept: %s", error)
