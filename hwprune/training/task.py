"""What a network is trained for and judged by: `Task`, and classification as one implementation of it.

Batches are what the user's loader gives, outputs what the network returns; both of any structure. Only a task
looks into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch.nn import functional
from torch.utils import _pytree as pytree

from hwprune.errors import DataError, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from hwprune.training.settings import Recipe

_IMAGE_KEYS = ("image", "images", "input", "inputs", "x")


@runtime_checkable
class SetMetric(Protocol):
    """A metric that only a whole set of images has, such as mAP or mIoU.

    torchmetrics' have these methods too; wrap them, for their `update` takes predictions and targets.
    """

    def reset(self) -> None:
        """Forget what was seen."""

    def update(self, outputs: Any, batch: Any, /) -> None:
        """See the outputs of one batch."""

    def compute(self) -> Any:
        """The figure of all that was seen: a number, higher is better."""


class Task(Protocol):
    """A loss to train by and a metric to judge by.

    A task may also have:
        `inputs(batch)`: What the network is called with: one tensor, a tuple (positional arguments) or a dict
            (keyword arguments). By default a batch that is a tensor itself, the entry `image`, `images`,
            `input`, `inputs`, `x` or else the first of a dict, and the first entry of a tuple or list.
        `distill(outputs, teacher_outputs, batch)`: How far the outputs are from a teacher's, a scalar;
            `training.distill.distance` has the default.
        `name`: What the metric is called in messages and reports.

    Attributes:
        metric: Either a function of outputs and batch that gives a figure for each image, (N,), higher is
            better, of which the mean is the score; or a `SetMetric`.

    Example:
        >>> class Depth:
        ...     name = "closeness"
        ...
        ...     def loss(self, outputs, batch):
        ...         return (outputs - batch["depth"]).abs().mean()
        ...
        ...     def metric(self, outputs, batch):  # (N,)
        ...         return 1 - (outputs - batch["depth"]).abs().flatten(1).mean(1)
        >>> batch = {"image": torch.ones(2, 1, 4, 4), "depth": 1.0}
        >>> hwprune.evaluate(torch.nn.Identity(), [batch], task=Depth())
        1.0
    """

    def loss(self, outputs: Any, batch: Any, /) -> Tensor:
        """Mean loss of a batch: a scalar to go backward from. The network is in training mode."""

    @property
    def metric(self) -> Callable[[Any, Any], Tensor] | SetMetric:
        """See above. The network is in eval mode; a figure for each image is told in training too."""


class Classification:
    """Cross-entropy and top-1 accuracy: outputs (N, classes), batches (images, labels).

    Labels are (N,), or, of mixed images, shares of the classes, (N, classes).

    Args:
        label_smoothing: Share of the target spread over all classes.
        class_weights: What each class weighs in the loss, (classes,); None: all alike.
        temperature: Softening of both outputs in distillation.

    Example:
        >>> task = hwprune.Classification(label_smoothing=0.1)
        >>> task.metric(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), (None, torch.tensor([1, 1])))
        tensor([ True, False])
    """

    name = "top-1"

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: Tensor | None = None, temperature: float = 4.0
    ) -> None:
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.temperature = temperature

    @classmethod
    def of(cls, recipe: Recipe, class_weights: Tensor | None = None) -> Classification:
        """Classification with a recipe's label smoothing and temperature."""
        temperature = getattr(recipe, "distill_temperature", 4.0)
        return cls(recipe.label_smoothing, class_weights, temperature)

    def loss(self, outputs: Any, batch: Any, /) -> Tensor:
        """Mean cross-entropy."""
        return functional.cross_entropy(
            logits_of(outputs), batch[1], self.class_weights, label_smoothing=self.label_smoothing
        )

    def metric(self, outputs: Any, batch: Any, /) -> Tensor:
        """Which images are classified rightly: (N,)."""
        labels = batch[1]
        most = labels.argmax(1) if labels.ndim == 2 else labels
        found: Tensor = logits_of(outputs).argmax(1) == most
        return found

    def distill(self, outputs: Any, teacher_outputs: Any, batch: Any, /) -> Tensor:
        """Divergence of the softened class scores (Hinton et al. 2015, section 2)."""
        return soft_targets(logits_of(outputs), logits_of(teacher_outputs), self.temperature)

    def close(self, outputs: Any, /) -> Tensor:
        """Of which images (N,) the two highest scores are so close that rounding to bfloat16 may decide."""
        scores = logits_of(outputs)
        highest = scores.topk(min(2, scores.shape[1]), dim=1).values
        return highest[:, 0] - highest[:, -1] < _CLOSE * scores.std(1)


CLASSIFICATION = Classification()
_CLOSE = 0.03  # of the standard deviation of an image's scores; what bfloat16 changes is nearly always closer


def logits_of(output: Any) -> Tensor:
    """The class scores in what a classifier returned, (N, classes).

    GoogLeNet and Inception return a tuple while training; its first entry is the main classifier's.

    Raises:
        ModelError: The network returned something else.
    """
    found = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise ModelError(
            "The model does not return class scores.",
            got=_form(found),
            allowed="(images, classes)",
            do="give a task of your own for other networks",
        )
    return found.float()


def soft_targets(outputs: Tensor, teacher_outputs: Tensor, temperature: float) -> Tensor:
    """Divergence from a teacher's softened class scores, classes in dimension 1: a scalar.

    Multiplied by the squared temperature, which keeps its gradients at the size of cross-entropy's.
    """
    wanted = functional.log_softmax(teacher_outputs / temperature, dim=1)
    got = functional.log_softmax(outputs / temperature, dim=1)
    places = outputs.numel() // (len(outputs) * outputs.shape[1])
    found = functional.kl_div(got, wanted, reduction="batchmean", log_target=True) * temperature**2
    return found if places == 1 else found / places


def check_task(task: Any) -> None:
    """Refuse what is no task.

    Raises:
        UsageError: It has no loss or metric, or is a class and no object of it.
    """
    is_class = isinstance(task, type)
    if is_class or not callable(getattr(task, "loss", None)) or not hasattr(task, "metric"):
        raise UsageError(
            "This is no task.",
            where="task",
            got=f"the class {task.__name__}" if is_class else type(task).__name__,
            allowed="an object with loss(outputs, batch) and metric, see `hwprune.Task`",
            do=f"give {task.__name__}()" if is_class else "give it these two",
        )


def name_of(task: Task) -> str:
    """What the metric of a task is called."""
    own = getattr(task, "name", "")
    return own if isinstance(own, str) and own else type(task.metric if over_a_set(task) else task).__name__


def over_a_set(task: Task) -> bool:
    """Whether the metric is one of a whole set, not of each image."""
    return isinstance(task.metric, SetMetric)


def inputs_of(task: Task, batch: Any) -> Any:
    """What the network is called with for a batch; see `Task`."""
    own = getattr(task, "inputs", None)
    if own is not None:
        return own(batch)
    if isinstance(batch, Mapping) and batch:
        return batch[next((key for key in _IMAGE_KEYS if key in batch), next(iter(batch)))]
    if isinstance(batch, tuple | list) and batch:
        return batch[0]
    if isinstance(batch, torch.Tensor):
        return batch
    raise DataError(
        "What the network is to be called with cannot be told from a batch.",
        where="the loader",
        got=type(batch).__name__,
        allowed="a tensor, a tuple, a list or a dict",
        do="give the task a function `inputs(batch)`",
    )


def call(net: nn.Module, inputs: Any) -> Any:
    """Run a network: a tuple is its positional arguments, a dict its keyword arguments."""
    if isinstance(inputs, tuple):
        return net(*inputs)
    return net(**inputs) if isinstance(inputs, Mapping) else net(inputs)


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a batch or in outputs, in a fixed order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def images_in(inputs: Any) -> int:
    """How many images a network is called with: the first size of the first tensor; of a list its length."""
    if isinstance(inputs, list):
        return len(inputs)
    found = tensors_in(inputs)
    if not found or not found[0].ndim:
        raise DataError(
            "A batch holds no images.",
            where="the loader",
            got=_form(inputs),
            allowed="a tensor (N, ...), or several",
            do="give the task a function `inputs(batch)`",
        )
    return len(found[0])


def first_of(inputs: Any, count: int) -> Any:
    """The first images of what a network is called with."""
    if isinstance(inputs, list):
        return inputs[:count]
    return pytree.tree_map_only(torch.Tensor, lambda one: one[:count] if one.ndim else one, inputs)


def loss_of(task: Task, outputs: Any, batch: Any) -> Tensor:
    """The loss of a batch.

    Raises:
        ModelError: It is not a scalar that one can go backward from.
    """
    loss = task.loss(outputs, batch)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        raise ModelError(
            "The loss of the task is not a scalar.",
            where=f"{type(task).__name__}.loss",
            got=_form(loss),
            allowed="a float tensor of one element, the mean over the batch",
            do="return for instance `losses.mean()`",
        )
    return loss.reshape(())


def figures_of(task: Task, outputs: Any, batch: Any, images: int) -> Tensor:
    """What a metric says of each image: (N,).

    Raises:
        ModelError: It says something else.
    """
    found: Any = task.metric(outputs, batch) if callable(task.metric) else None
    if not isinstance(found, torch.Tensor) or found.shape != (images,) or found.is_complex():
        raise ModelError(
            "The metric of the task does not give one figure for each image.",
            where=f"{type(task).__name__}.metric",
            got=_form(found),
            allowed=f"a tensor of shape ({images},), higher is better",
            do="or make it an object with reset(), update(outputs, batch) and compute(), for a whole set",
        )
    return found.detach()


def computed(metric: SetMetric, name: str) -> float:
    """What a metric of a set comes to.

    Raises:
        ModelError: It is not a finite number.
    """
    found = metric.compute()
    with_item = found.item() if isinstance(found, torch.Tensor) and found.numel() == 1 else found
    if isinstance(with_item, bool) or not isinstance(with_item, int | float):
        got = f"a dict of {', '.join(map(str, found))}" if isinstance(found, Mapping) else _form(found)
        raise ModelError(
            "The metric of the task does not come to one number.",
            where=f"{name}, compute()",
            got=got,
            allowed="a number, higher is better",
            do="return one figure from compute()",
        )
    return finite(float(with_item), name)


def finite(score: float, name: str) -> float:
    """A score, which must be a finite number.

    Raises:
        ModelError: It is not.
    """
    if not -float("inf") < score < float("inf"):
        raise ModelError(
            "The metric of the task is not a finite number.",
            where=name,
            got=score,
            do="look for divisions by zero in the metric, and for NaN in the network's outputs",
        )
    return score


def _form(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
