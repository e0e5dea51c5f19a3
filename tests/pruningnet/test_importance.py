"""Importance of channels: what does nothing must come last."""

from __future__ import annotations

import pytest
import torch

from hwprune.errors import DataError
from hwprune.pruningnet.importance import importance


def silence(model, group_index, channel, space):
    """Take one channel of a group out of the network, in every tensor that it touches."""
    state = model.state_dict()
    with torch.no_grad():
        for layer in space.layers:
            for tensor in layer.tensors:
                for axis, channels in tensor.axes:
                    offset = 0
                    for run in channels.runs:
                        if run.group == group_index:
                            state[tensor.name].select(axis, offset + channel).zero_()
                        offset += run.length * run.repeat


@pytest.mark.parametrize("name", ["l1", "bn_scale", "taylor", "fisher"])
def test_a_channel_that_does_nothing_is_the_least_important(model, space, splits, name):
    batches = list(splits.sub_train.subset(range(64)).batches(32))
    for index, group in enumerate(space.groups):
        channel = group.width // 2
        silence(model, index, channel, space)
        scores = importance(name, model, space, batches)
        assert [score.shape for score in scores] == [(g.width,) for g in space.groups]
        assert int(scores[index].argmin()) == channel, (group.name, name)


def test_taylor_is_the_product_of_weight_and_gradient(learner, splits):
    model, space = learner
    batches = list(splits.sub_train.subset(range(32)).batches(32))
    scores = importance("taylor", model, space, batches)
    first = next(layer for layer in space.layers if layer.op == "conv")
    (images, labels) = batches[0]
    model.eval()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    weight = model.get_parameter(f"{first.name}.weight")
    (gradient,) = torch.autograd.grad(loss, [weight])
    own = (weight * gradient).abs().flatten(1).sum(1).detach()
    following = [layer for layer in space.layers if layer.inputs.groups == first.outputs.groups]
    assert first.outputs.groups == (0,)
    assert any(layer.op == "conv" for layer in following)
    assert torch.corrcoef(torch.stack([scores[0], own]))[0, 1] > 0.3


def test_fisher_is_the_mean_square_of_what_a_channel_changes(learner, splits):
    """A channel whose gradients differ from batch to batch counts, though they cancel in the mean."""
    model, space = learner
    batches = list(splits.sub_train.subset(range(32)).batches(16))
    mirrored = [*batches, *((images, labels) for images, labels in batches)]
    assert all(
        torch.allclose(twice, once)
        for twice, once in zip(
            importance("fisher", model, space, mirrored),
            importance("fisher", model, space, batches),
            strict=True,
        )
    ), "scores are relative: the same images twice say the same"
    fisher, taylor = (importance(name, model, space, batches) for name in ("fisher", "taylor"))
    assert any(not torch.equal(a.argsort(), b.argsort()) for a, b in zip(fisher, taylor, strict=True))
    assert all((score >= 0).all() for score in fisher)


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_what_reads_gradients_needs_images(learner, name):
    with pytest.raises(DataError, match="training images"):
        importance(name, *learner)
