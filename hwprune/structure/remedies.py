"""What would free channels that stay, by the reason why they do. No torch."""

from __future__ import annotations

# Words of a reason -> what would free the channels; the first that fits counts.
REMEDIES = {
    "model's outputs": "nothing: outputs keep their shape",
    "is excluded": "take it out of `exclude` under [model]",
    "takes no part in eval mode": "nothing: it is not deployed",
    "only training uses": "build the model without its auxiliary heads",
    "written in the model's code": "take them from `x.shape`, or keep them in an attribute of the module",
    "the model fails": "take the sizes in the model's code from `x.shape`",
    "sliced ONNX computes something else": "let the model's code do the same at all widths",
    "change their shape": "let the shape of the outputs depend on the inputs alone",
    "no longer finite": "divide by nothing that may become zero",
    "multiplies two feature maps": "nothing yet: attention is not pruned",
    "has no rule": "give the operator a rule, see docs/structure.md",
    "works over channels": "nothing: the operator compares channels with each other",
    "reads positions": "pool positions before a layer that weighs them one by one",
    "meets a constant size": "let what it meets follow `x.shape`",
    "whose size is fixed": "let what it meets follow `x.shape`",
    "would have nothing left": "nothing: it is a single channel",
    "makes a single channel": "nothing: it is a single channel",
    "go together": "nothing: no part of them could go alone",
    "equal": "let all parts follow channels that may go, or make the parts alike",
}


def remedy(reason: str) -> str:
    """What would free channels that stay for a reason, as `SearchSpace.frozen` gives it."""
    return next(
        (text for words, text in REMEDIES.items() if words in reason), "replace the operator that is named"
    )
