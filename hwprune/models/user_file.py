"""Networks from the user's own Python file, named `path/to/file.py:FUNCTION`.

The file is executed: it is code that the user chose to run, like any import.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hwprune.errors import ModelError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


def is_user_file(name: str) -> bool:
    """Whether the name of a model is a Python file, with or without a function."""
    return name.endswith(".py") or ".py:" in name


def build(name: str, *, num_classes: int, image_size: int | None = None) -> nn.Module:
    """Run the file and call its function, with `num_classes` and `image_size` if it accepts them.

    While it runs, the file's folder is importable, so the file may import its neighbours.

    Raises:
        ModelError: No such file or function, an exception inside it, or a result that is not a module.
        UsageError: The name has no function.
    """
    path, function = _parse(name)
    arguments = {"num_classes": num_classes}
    if image_size is not None:
        arguments["image_size"] = image_size
    with _importable(path.parent):
        factory = _factory(_load(path), path, function)
        try:
            network = factory(**_accepted(factory, arguments))
        except (Exception, SystemExit) as error:
            raise _failed(f"{function}() failed.", path, error) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{function}() does not return a network.",
            where=path,
            got=type(network).__name__,
            allowed="a torch.nn.Module",
        )
    return network


def load_object(name: str) -> Any:
    """Run the file of a task and give its object: made of its class, or as it stands there.

    Raises:
        ModelError: No such file or name, or an exception inside it.
        UsageError: The name has no class.
    """
    path, wanted = _parse(name, "task", "class", "path/to/file.py:Task")
    with _importable(path.parent):
        module = _load(path)
        if not hasattr(module, wanted):
            own = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise ModelError(
                f"The file has no {wanted!r}.",
                where=path,
                allowed=nearest(wanted, own) if own else "a class with loss, metric and loaders",
            )
        found = getattr(module, wanted)
        try:
            return found() if isinstance(found, type) else found
        except (Exception, SystemExit) as error:
            raise _failed(f"{wanted}() failed.", path, error) from error


def _parse(
    name: str, what: str = "model", part: str = "function", allowed: str = "path/to/file.py:FUNCTION"
) -> tuple[Path, str]:
    file, separator, function = name.rpartition(":")
    if not separator or not file.endswith(".py") or not function.isidentifier():
        raise UsageError(
            f"A {what} in your own file needs the {part} that builds it.",
            where=what,
            got=repr(name),
            allowed=allowed,
        )
    path = Path(file).expanduser()
    if not path.is_file():
        raise ModelError("There is no such Python file.", where=path, do="check the path")
    return path.resolve(), function


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed sys.path itself
            sys.path.remove(entry)


def _load(path: Path) -> ModuleType:
    """Execute the file as a module under a name that is its own."""
    name = f"hwprune_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModelError("The file cannot be loaded as Python code.", where=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and inspect look their module up here
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _failed("The file failed while it was being loaded.", path, error) from error
    return module


def _factory(module: ModuleType, path: Path, function: str) -> Callable[..., Any]:
    factory = getattr(module, function, None)
    if callable(factory) and not isinstance(factory, nn.Module):
        return factory  # type: ignore[no-any-return]
    own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    raise ModelError(
        f"The file has no function {function!r}.",
        where=path,
        got=f"{function} is a {type(factory).__name__}" if hasattr(module, function) else None,
        allowed=nearest(function, own) if own else "a function that returns a torch.nn.Module",
    )


def _accepted(factory: Callable[..., Any], arguments: dict[str, int]) -> dict[str, int]:
    """The arguments that the function takes by keyword."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # some C functions have no signature
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        # **kwargs usually go on to a library's network, and those know num_classes alone.
        named = {parameter.name for parameter in parameters} | {"num_classes"}
    else:
        named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in arguments.items() if name in named}


def _failed(what: str, path: Path, error: BaseException) -> ModelError:
    """The user's exception with the line of their file that it passed last."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines.append(error.lineno)
    where = f"{path}, line {lines[-1]}" if lines else path
    return ModelError(what, where=where, got=f"{type(error).__name__}: {error}")
