"""Everything that hwprune raises on purpose.

    HwpruneError
    ├── UsageError            an option, quantity or name that cannot be understood
    ├── ConfigError           hwprune.toml or a target profile is wrong (all problems at once)
    ├── ModelError            the model cannot be built, loaded, traced or exported
    ├── DataError             the images cannot be read or are too few
    ├── DeviceError           the device or its runtime is not there, or too noisy to trust
    ├── BudgetError           no network was found that keeps the budget
    │   └── ImpossibleBudgetError  no network of the space can
    ├── WorkerError           one of several workers is gone
    └── ArtifactError         a file in the project folder
        ├── MissingArtifactError   a stage has not been run yet
        ├── MismatchError          made by another model, device, profile or library version
        ├── StorageError           full disk, no permission
        └── BusyError              another process works in the project

The command line prints the message of any of these and exits with 1 (2 for `UsageError`); any other
exception is a bug in hwprune.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_LONGEST_NAME = 200


class HwpruneError(Exception):
    """Base of all errors that a user can cause and mend.

    Args:
        what: What went wrong, one sentence.
        where: The file, option, layer or device concerned.
        got: The value found.
        allowed: What would have been right.
        do: The next step for the user, usually a command.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        got: object = None,
        allowed: object = None,
        do: str | None = None,
    ) -> None:
        self.what, self.where, self.got, self.allowed, self.do = what, where, got, allowed, do
        super().__init__(what)

    def __str__(self) -> str:
        details = (("where", self.where), ("got", self.got), ("allowed", self.allowed), ("do", self.do))
        return "\n".join(
            [self.what, *(f"  {key + ':':9}{text}" for key, text in details if text is not None)]
        )


class UsageError(HwpruneError):
    """An option, quantity or name that cannot be understood."""

    exit_code = 2


class ConfigError(HwpruneError):
    """A configuration file or profile that is wrong; lists every problem found."""


class ModelError(HwpruneError):
    """A model that cannot be built, loaded, traced or exported."""


class DataError(HwpruneError):
    """Images that cannot be read, or too few of them."""


class DeviceError(HwpruneError):
    """A device or runtime that is not there, or too noisy to trust."""


class BudgetError(HwpruneError):
    """No network of the space fits the budget."""


class ImpossibleBudgetError(BudgetError):
    """No network of the space can keep the budgets, whatever is measured."""


class WorkerError(HwpruneError):
    """One of the workers that torchrun started is gone."""


class ArtifactError(HwpruneError):
    """A file of the project that cannot be read or written."""


class MissingArtifactError(ArtifactError):
    """A file that an earlier stage has not made yet."""


class MismatchError(ArtifactError):
    """A file made for another model, device, profile or library version."""


class StorageError(ArtifactError):
    """The disk is full or the folder may not be written."""


class BusyError(ArtifactError):
    """Another process works in the project."""


class HwpruneWarning(UserWarning):
    """Something the user should know that does not stop the work."""


def nearest(name: str, known: Iterable[str], count: int = 3, prefix: str = "") -> str:
    """Names spelt like `name`, each behind `prefix`, or all when none is near, as text for `allowed`."""
    names = sorted(known)
    # Comparing takes the square of the length, and no name of ours is that long.
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5) if len(name) <= _LONGEST_NAME else []
    told = [f"{prefix}{one}" for one in close or names]
    return f"did you mean {' or '.join(told)}?" if close else ", ".join(told)


_STEP = re.compile(r"`hwprune (?:profile|predict|search|train|export|report)\b(?! --project)")


@contextlib.contextmanager
def steps_in(project: Path) -> Iterator[None]:
    """Let the next steps that errors name go on in a project that is not in the current folder."""
    try:
        yield
    except HwpruneError as error:
        if error.do and project != Path("."):
            place = shlex.quote(str(project))
            error.do = _STEP.sub(lambda step: f"{step[0]} --project {place}", error.do)
        raise
