"""Folding batch normalisation into the convolutions before it, for scoring."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)

Pair = tuple[str, str]


def conv_norm_pairs(model: nn.Module) -> tuple[Pair, ...]:
    """Names of the convolutions whose output goes to one batch norm and nowhere else, with that norm's.

    Found by symbolic tracing; a model that cannot be traced so has none, and is scored unfolded.
    """
    try:
        graph = fx.Tracer().trace(model.eval())
    except Exception as error:
        # The model's own forward runs here on symbols, so it may raise anything.
        _log.info("batch norm is not folded while scoring, the model's forward is not symbolic: %s", error)
        return ()
    modules = dict(model.named_modules())
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    pairs = []
    for node in calls:
        source = node.args[0] if node.args else None
        if (
            isinstance(source, fx.Node)
            and source.op == "call_module"
            and len(source.users) == 1
            and type(modules[str(node.target)]) is nn.BatchNorm2d
            and type(modules[str(source.target)]) is nn.Conv2d
            and targets.count(str(node.target)) == targets.count(str(source.target)) == 1
        ):
            pairs.append((str(source.target), str(node.target)))
    return tuple(pairs)


def fold(model: nn.Module, pairs: Iterable[Pair]) -> None:
    """Fold each norm of `pairs` into its convolution, in place; an identity takes the place of the norm.

    Pairs in blocks that the model does not have are passed over.
    """
    modules = dict(model.named_modules())
    for conv, norm in pairs:
        if conv not in modules:
            continue
        fused = fuse_conv_bn_eval(modules[conv], modules[norm])
        for name, new in ((conv, fused), (norm, nn.Identity())):
            parent, _, leaf = name.rpartition(".")
            setattr(modules[parent], leaf, new)
