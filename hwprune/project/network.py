"""The network that a project is about: a torch model, or an ONNX file, with its search space and its ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwprune.errors import ModelError, UsageError
from hwprune.project.folder import is_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hwprune.project.folder import Project
    from hwprune.structure.space import SearchSpace


def prepared(name: str) -> bytes:
    """The ONNX file that a model's name is, as hwprune works with it.

    Raises:
        ModelError: There is no such file, or it cannot be used; says why.
    """
    from hwprune.structure.trace_onnx import prepare_onnx

    return prepare_onnx(Path(name))


def check_settings(project: Project) -> None:
    """Refuse settings that an ONNX file cannot have.

    Raises:
        UsageError: Images or weights are given: only torch models are trained.
    """
    model, data = project.config.model, project.config.data
    if is_onnx(model.name) and (data.given or model.weights):
        raise UsageError(
            "An ONNX file cannot be trained.",
            where=model.name,
            got=f"data {data.source or data.task!r}, weights {model.weights!r}",
            allowed='no images: --data ""',
            do="search it by MACs within a latency budget, or give the torch model that it was exported from",
        )


def traced(project: Project, *, tied: bool = True) -> SearchSpace:
    """The search space of the project's model, with the paper's raw choices.

    Args:
        project: The project.
        tied: Whether the inner layers of tied modules share one width, when the project names such.

    Raises:
        ModelError: The model cannot be traced, has nothing to prune, or has not one output for each class.
    """
    from hwprune.structure.tied import tie

    settings = project.config.model
    if is_onnx(settings.name):
        from hwprune.structure.trace_onnx import read_onnx, trace_onnx

        content, exclude = read_onnx(Path(settings.name)), settings.exclude
        space = trace_onnx(content, name=settings.name, exclude=exclude, depth=settings.depth)
    else:
        space = _traced_torch(project)
    return tie(space, settings.tied) if tied else space


def _traced_torch(project: Project) -> SearchSpace:
    import torch

    from hwprune.structure.trace import trace

    images = torch.zeros(1, *project.input_shape)
    model, settings = project.new_model(), project.config.model
    space = trace(model, images, name=settings.name, exclude=settings.exclude, depth=settings.depth)
    if project.config.data.source:
        _check_outputs(model, images, project.num_classes)
    return space


def _check_outputs(model: nn.Module, images: Tensor, classes: int) -> None:
    import torch

    from hwprune.training.task import logits_of

    with torch.inference_mode():
        outputs = logits_of(model.eval()(images)).shape[1]
    if outputs != classes:
        raise ModelError(
            "The model does not have one output for each class of the images.",
            got=f"{outputs} outputs",
            allowed=f"{classes}",
            do="let the model's function take `num_classes`, or give images of as many classes",
        )


def unpruned_onnx(project: Project, space: SearchSpace, batch: int) -> bytes:
    """The unpruned network as 32-bit ONNX.

    Args:
        project: The project.
        space: Its search space.
        batch: Images in one run.
    """
    name = project.config.model.name
    if is_onnx(name):
        from hwprune.structure.onnx_slice import OnnxSlicer

        return OnnxSlicer(prepared(name), space).slice(space.full(), batch=batch)
    from hwprune.structure.export import export_base

    return export_base(project.new_model(), (batch, *space.input_shape[1:]))
