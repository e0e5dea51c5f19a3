"""What a search space promises, checked by brute force on one network. The analysis has no part in it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import hwprune
from hwprune.structure.rank import sort_channels
from hwprune.structure.space import SearchSpace, Widths

TOLERANCE = 1e-4
_PER_CHANNEL = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.PReLU)
_READ_BY_ROWS = (nn.Linear, nn.RNNBase, nn.MultiheadAttention)


def assert_right(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    space: SearchSpace,
    *,
    rng: np.random.Generator,
    mixes: bool = False,
    uncounted: bool = False,
) -> None:
    """Check everything that `space` says about `model`, whose weights are changed.

    Args:
        model: What the space was traced from.
        inputs: The tensors of one call; the first axis of each is the batch.
        space: What `hwprune.trace` returned.
        rng: Draws weights, networks and orders.
        mixes: Channels are normalised or compared with one another: no comparison with the masked network.
        uncounted: Torch's counter cannot count the operations.
    """
    shake(model.eval(), inputs, rng)
    full = run(model, inputs)
    assert all(bool(leaf.isfinite().all()) for leaf in tensors(full)), "the case itself is at fault"
    base = hwprune.export_base(model, inputs)
    _check_order(model, inputs, space, full, rng)
    drawn = [space.smallest(), space.full(), *(space.sample(rng) for _ in range(2))]
    for number, widths in enumerate(dict.fromkeys(drawn)):
        pruned = hwprune.prune(model, space, widths)
        _check_kind(model, pruned, full, run(pruned, inputs), widths)
        _check_norm_groups(model, space, widths)
        _check_counts(pruned, inputs, space, widths, uncounted or recurrent(model))
        if not mixes:
            with torch.no_grad():
                masked = functional_call(model, readers_masked(model, space, widths), copies(inputs))
            _same(
                run(pruned, inputs), masked, f"pruned {widths}, against the full network with masked readers"
            )
        size = 3 if number % 2 else len(inputs[0])  # another batch than that of the trace, every other time
        batch = resized(inputs, size, rng)
        content = hwprune.slice_onnx(base, space, widths, batch=None if batch is inputs else size)
        _same(run_onnx(content, batch), run(pruned, batch), f"ONNX of {widths}, batch of {size}")


def shake(model: nn.Module, inputs: tuple[Tensor, ...], rng: np.random.Generator) -> None:
    """Give all parameters and running statistics random values, so that no constant hides a fault."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(_random(parameter, generator))
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        spectral = [m for m in model.modules() if type(m).__name__ == "_SpectralNorm"]
        for module in spectral:
            module.train()  # so that it follows the new weights
        if spectral:
            for _ in range(5):
                model(*copies(inputs))
            model.eval()


def _random(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Matrices scaled by what one output reads; vectors away from zero, of both signs now and then."""
    noise = torch.rand(parameter.shape, generator=generator)
    reads = parameter.numel() // max(parameter.shape, default=1)
    if parameter.ndim >= 2 and reads > 1:
        return (noise - 0.5) * math.sqrt(24 / (parameter.numel() / parameter.shape[0]))
    signs = (torch.rand(parameter.shape, generator=generator) > 0.2) * 2 - 1
    return (noise + 0.5) * signs


def run(model: nn.Module, inputs: tuple[Tensor, ...]) -> object:
    """The outputs, whatever they are packed in."""
    with torch.no_grad():
        return model(*copies(inputs))


def run_onnx(content: bytes, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The outputs of ONNX Runtime, in the file's order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    assert len(names) == len(inputs)
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(np.asarray(found)) for found in session.run(None, feed)]


def copies(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The model may write into its inputs."""
    return tuple(tensor.clone() for tensor in inputs)


def resized(inputs: tuple[Tensor, ...], batch: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Inputs of another batch, or the same tuple where it has this batch."""
    if batch == len(inputs[0]):
        return inputs
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    return tuple(
        torch.randn((batch, *tensor.shape[1:]), generator=generator)
        if tensor.is_floating_point()
        else tensor[torch.arange(batch) % len(tensor)]
        for tensor in inputs
    )


def tensors(outputs: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]


def recurrent(model: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in model.modules())


def _check_order(
    model: nn.Module, inputs: tuple[Tensor, ...], space: SearchSpace, full: object, rng: np.random.Generator
) -> None:
    """The order of a group's channels means nothing."""
    scores = [torch.from_numpy(rng.random(group.width)) for group in space.groups]
    _same(run(sort_channels(model, space, scores), inputs), full, "channels in another order")


def _check_kind(model: nn.Module, pruned: nn.Module, full: object, got: object, widths: Widths) -> None:
    """A pruned network is the same kind of module and gives the same kind of outputs."""
    assert tree_flatten(got)[1] == tree_flatten(full)[1], f"{widths}: outputs are packed differently"
    shapes = [[tuple(leaf.shape) for leaf in tensors(found)] for found in (got, full)]
    assert shapes[0] == shapes[1], f"{widths}: outputs {shapes[0]} instead of {shapes[1]}"
    assert list(pruned.state_dict()) == list(model.state_dict()), f"{widths}: other tensors"
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: p.requires_grad for name, p in pruned.named_parameters()} == wanted


def _check_norm_groups(model: nn.Module, space: SearchSpace, widths: Widths) -> None:
    """Each norm group keeps as many channels as any other, or trained weights see other statistics."""
    modules = dict(model.named_modules())
    for layer in space.layers:
        module = modules.get(layer.name)
        if isinstance(module, nn.GroupNorm) and module.num_groups < module.num_channels:
            kept = layer.outputs.kept(widths) // (module.num_channels // module.num_groups)
            counts = np.bincount(kept, minlength=module.num_groups)
            assert len(set(counts)) == 1, (
                f"{widths}: norm groups of {layer.name} keep {counts.tolist()} channels"
            )


def _check_counts(
    pruned: nn.Module, inputs: tuple[Tensor, ...], space: SearchSpace, widths: Widths, uncounted: bool
) -> None:
    """Parameters and multiply-accumulates are those that torch counts."""
    assert int(space.params(widths)) == sum(p.numel() for p in pruned.parameters()), f"parameters of {widths}"
    if not uncounted:
        assert int(space.macs(widths)) == count_macs(pruned, inputs), f"MACs of {widths}"


def count_macs(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of one image. The fast path of attention is not counted, so it is not taken."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(*(tensor[:1].clone() for tensor in inputs))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2


def readers_masked(model: nn.Module, space: SearchSpace, widths: Widths) -> dict[str, Tensor]:
    """The full network's tensors with zeros where they would read a removed channel."""
    modules = dict(model.named_modules())
    masks: dict[int, Tensor] = {}  # two names may be one tensor
    owners: dict[str, Tensor] = {}
    for name, axis, channels in _mapped_axes(space):
        path, _, leaf = name.rpartition(".")
        tensor = getattr(modules[path], leaf)
        if _reads(modules[path], leaf, tensor, axis):
            keep = torch.zeros(tensor.shape[axis])
            keep[torch.from_numpy(channels.kept(widths))] = 1
            shape = [-1 if a == axis else 1 for a in range(tensor.ndim)]
            masks[id(tensor)] = masks.get(id(tensor), torch.ones(())) * keep.view(shape)
            owners[name] = tensor
    masked: dict[int, Tensor] = {}
    for tensor in owners.values():
        masked[id(tensor)] = (tensor.detach() * masks[id(tensor)]).to(tensor.dtype)
    return {name: masked[id(tensor)] for name, tensor in owners.items()}


def _mapped_axes(space: SearchSpace) -> Iterator[tuple[str, int, hwprune.structure.space.ChannelMap]]:
    for layer in space.layers:
        for tensor in layer.tensors:
            for axis, channels in tensor.axes:
                yield tensor.name, axis, channels


def _reads(module: nn.Module, leaf: str, tensor: Tensor, axis: int) -> bool:
    """Whether a tensor's elements along `axis` meet the channels that are summed over.

    What a module of the user's does with its tensors is not known, so all their axes are taken: that is right
    too, for a channel that is not read may have any value.
    """
    if isinstance(module, _ConvNd):
        return leaf == "weight" and axis == (0 if module.transposed else 1)
    if isinstance(module, _READ_BY_ROWS):
        return "weight" in leaf and axis == 1
    if isinstance(module, _PER_CHANNEL):
        return False
    return isinstance(tensor, nn.Parameter) or sum(size > 1 for size in tensor.shape) > 1


def _same(got: object, expected: object, what: str) -> None:
    found, wanted = tensors(got), tensors(expected)
    assert len(found) == len(wanted), f"{what}: {len(found)} outputs instead of {len(wanted)}"
    for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
        assert one.shape == other.shape, (
            f"{what}: output {index}: {tuple(one.shape)}, not {tuple(other.shape)}"
        )
        largest = max(float(other.abs().max()), 1e-6) if other.numel() else 1.0
        error = float((one.double() - other.double()).abs().max()) / largest if other.numel() else 0.0
        assert error <= TOLERANCE, f"{what}: output {index} is off by {error:.2g}"
