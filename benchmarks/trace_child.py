"""One network of `trace_zoo.py`, in a process of its own.

python benchmarks/trace_child.py JOB NAME SIZE LIMIT FILE

JOB is `check` (trace, then verify), `time` (trace only), `torch_pruning` or `onnxsim`. The record is written
to FILE as JSON after each part that is done: a process that dies leaves what it had found. A part that takes
longer than LIMIT seconds ends the process (SIGALRM, which ends native code too).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded

import copy
import json
import logging
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode
from trace_networks import NETWORKS, Network

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from hwprune.structure.space import SearchSpace, Widths

TOLERANCE = 1e-3
GATED = "blocks"  # in the names of networks without some blocks


class Record:
    """What is known of a network, on disk at all times."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        self.found: dict[str, Any] = {}

    def keep(self, **found: Any) -> None:
        """Write what is found, and begin the time of the next part."""
        self.found.update(found)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        signal.alarm(self.limit)


def work(job: str, name: str, size: int, limit: int, path: Path) -> None:
    """Do a job in this process, whatever happens in it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    record = Record(path, limit)
    record.keep(outcome="timeout", part="build")
    try:
        jobs()[job](name, size, record)
    except BaseException as error:  # a record of any failure is what this process is for
        record.keep(**failure(error))


def jobs() -> dict[str, Callable[[str, int, Record], None]]:
    """What this process can do."""
    import trace_rivals

    return {
        "check": check,
        "time": time_trace,
        "torch_pruning": trace_rivals.torch_pruning,
        "onnxsim": trace_rivals.onnxsim,
    }


def failure(error: BaseException) -> dict[str, Any]:
    """How an exception is told in a record."""
    from hwprune.errors import HwpruneError

    place = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "outcome": "refused" if isinstance(error, HwpruneError) else "traceback",
        "message": one_line(f"{type(error).__name__}: {error}"),
        "place": f"{Path(place.filename).name}:{place.lineno}",
    }


def one_line(text: str) -> str:
    """A message without line breaks, of bearable length."""
    return " ".join(text.split())[:400]


def build(name: str, size: int) -> tuple[nn.Module, torch.Tensor]:
    """A network whose channels all differ and show in its outputs, and one image."""
    network = next((one for one in NETWORKS if one.name == name), None) or Network(name, "", size)
    torch.manual_seed(0)
    timm.layers.set_fused_attn(False)  # torch's counter leaves the fused operator out on a CPU
    model = network.build(size).eval()
    enliven(model, torch.randn(8, 3, size, size))
    return model, torch.randn(1, 3, size, size)


def enliven(model: nn.Module, images: torch.Tensor) -> None:
    """Give batch norms the statistics of `images`, and every constant parameter values of its own.

    Scales that start at 1, biases that start at 0 and layer scales of 1e-6 would hide a wrong slice.
    """
    norms = [one for one in model.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
                drawn = torch.rand(parameter.shape)
                parameter.copy_(drawn * 0.2 - 0.1 if name.endswith("bias") else drawn * 0.5 + 0.75)
        for norm in norms:
            norm.momentum = 1.0  # take over the statistics of this one batch
            norm.train()
        model(images)
        model.eval()
        for norm in norms:
            if norm.running_var is not None:  # a channel that hardly varies would blow up rounding errors
                norm.running_var.clamp_(min=max(float(norm.running_var.mean()) * 0.02, 1e-5))


def outputs(model: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """All tensors that a model returns, in order."""
    with torch.no_grad():
        return [one for one in torch.utils._pytree.tree_leaves(model(image)) if torch.is_tensor(one)]


def fault(got: list[Any], expected: list[torch.Tensor]) -> str:
    """What is wrong with outputs, beside others; empty where nothing is."""
    shapes = [tuple(one.shape) for one in got], [tuple(one.shape) for one in expected]
    if shapes[0] != shapes[1]:
        return f"shapes {shapes[0]} in place of {shapes[1]}"
    pairs = zip(got, expected, strict=True)
    offs = [distance(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    wrong = [off for off in offs if not off <= TOLERANCE]  # not a number is off, too
    return f"off by {max(wrong):.2g}" if wrong else ""


def distance(got: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """The largest difference, relative to the largest value expected."""
    if not expected.size:
        return 0.0
    return float(np.abs(got - expected).max() / max(np.abs(expected).max(), 1e-12))


def traced(
    name: str, size: int, record: Record, **options: Any
) -> tuple[nn.Module, SearchSpace, torch.Tensor]:
    """Build and trace, and keep what `trace` found."""
    import hwprune

    model, image = build(name, size)
    loaded = hwprune.trace  # what it imports is not part of its time
    record.keep(part="trace")
    started = time.monotonic()
    space = loaded(model, image, name=name, **options)
    seconds = time.monotonic() - started
    proof = getattr(space, "proof", None)
    record.keep(
        outcome="proved" if getattr(proof, "proved", False) else "traced",
        seconds=round(seconds, 2),
        proof_seconds=round(proof.seconds, 2) if proof is not None else None,
        checks=list(getattr(proof, "checks", ())),
        groups=len(space.groups),
        removable=round(1 - int(space.macs(space.uniform(0.0))) / int(space.macs(space.full())), 4),
        blocks=len(getattr(space, "blocks", ())),
        macs=int(space.macs(space.full())),
        frozen=dict(space.frozen),
    )
    return model, space, image


def time_trace(name: str, size: int, record: Record) -> None:
    """Trace only, for widths alone."""
    traced(name, size, record)
    record.keep(part="done", loaded_from=Path(str(sys.modules["hwprune"].__file__)).parents[1].name)


def check(name: str, size: int, record: Record) -> None:
    """Trace, then hold some networks of the space against torch's counters and ONNX Runtime."""
    from trace_masks import masked_fault

    import hwprune

    model, space, image = traced(name, size, record, depth=True)
    record.keep(part="verify", wrong=[])
    full = outputs(model, image)
    base = hwprune.export_base(model, tuple(image.shape))
    networks = {"full": space.full(), "narrowest": space.uniform(0.0), **drawn(space)}
    for number, (label, widths) in enumerate(networks.items(), 1):
        faults = verify(model, space, widths, base, image, full)
        record.found["wrong"] += [f"{label}: {one}" for one in faults]
        record.keep(verified=number)
    masks = {"half": space.uniform(0.5)}
    if space.blocks:
        masks[f"half, no {GATED}"] = space.uniform(0.5, depth=0.0)
    for label, widths in masks.items():
        passing = passed(model, [block.name for block in space.left_out(widths)])
        masked = masked_fault(passing, lambda twin, to=widths: hwprune.prune(twin, space, to), image)
        if masked:
            record.found["wrong"].append(f"{label}: not the masked network, {masked}")
        record.keep(masked=masked)
    removed = 1 - int(space.params(masks["half"])) / int(space.params(space.full()))
    without = sum(one.partition(":")[0].endswith(GATED) for one in record.found["wrong"])
    record.keep(part="done", removed=round(removed, 4), wrong_without_blocks=without)


def drawn(space: SearchSpace) -> dict[str, Widths]:
    """Networks of random widths, two with all blocks, one with every second and one with none of them."""
    rng = np.random.default_rng(0)
    samples = [space.sample(rng)[: len(space.groups)] for _ in range(3)]
    # Without its dense layer a group has the width 0; here the gates are others.
    pairs = [zip(one, space.groups, strict=True) for one in samples]
    widths = [[width or group.choices[0] for width, group in pair] for pair in pairs]
    found = {
        f"random {index + 1}": space.check([*widths[index], *[1] * len(space.blocks)]) for index in (0, 1)
    }
    if space.blocks:
        gates = [index % 2 for index in range(len(space.blocks))]
        found[f"every second {GATED}"] = space.check([*widths[2], *gates])
        found[f"no {GATED}"] = space.uniform(1.0, depth=0.0)
    return found


def passed(model: nn.Module, blocks: list[str]) -> nn.Module:
    """The model with the outputs of some modules replaced by their inputs, where these have one shape."""
    if not blocks:
        return model
    model = copy.deepcopy(model)

    def back(_: nn.Module, inputs: Any, output: Any) -> Any:
        same = torch.is_tensor(inputs[0]) and inputs[0].shape == output.shape
        return inputs[0].clone() if same else output

    for name in blocks:
        model.get_submodule(name).register_forward_hook(back)
    return model


def verify(
    model: nn.Module, space: SearchSpace, widths: Widths, base: bytes, image: torch.Tensor,
    full: list[torch.Tensor],
) -> list[str]:  # fmt: skip
    """What is wrong with one network of a space."""
    import hwprune

    pruned = hwprune.prune(model, space, widths).requires_grad_(False)  # the counter hooks gradients
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            got = outputs(pruned, image)
    except Exception as error:
        return [one_line(f"does not run: {error}")]
    faults = []
    if [one.shape for one in got] != [one.shape for one in full]:
        faults.append(fault(got, full))
    macs, params = counter.get_total_flops() // 2, sum(one.numel() for one in pruned.parameters())
    if macs != int(space.macs(widths)):
        faults.append(f"{int(space.macs(widths))} MACs said, torch counts {macs}")
    if params != int(space.params(widths)):
        faults.append(f"{int(space.params(widths))} parameters said, torch counts {params}")
    content = hwprune.slice_onnx(base, space, widths)
    try:
        off = fault(run_onnx(content, image), got)
    except Exception as error:  # ONNX Runtime's own
        off = one_line(f"does not run: {error}")
    return [*faults, f"ONNX {off}"] if off else faults


def run_onnx(content: bytes, image: torch.Tensor) -> list[Any]:
    """The outputs of a file in ONNX Runtime, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {session.get_inputs()[0].name: image.numpy()}))


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
