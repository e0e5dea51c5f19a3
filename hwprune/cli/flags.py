"""What the flags of a verb accept: each kind of value is read, refused and shown in help in one way."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from hwprune.errors import UsageError, nearest

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Sequence

_NUMBERS: dict[type, tuple[str, str]] = {int: ("INT", "a whole number"), float: ("FLOAT", "a number")}
_HELP = ("-h", "--help")


def refuse_unknown(verb: str, arguments: Sequence[str], parameters: Sequence[inspect.Parameter]) -> None:
    """Refuse an option that the verb does not have.

    Raises:
        UsageError: There is one; its message names those spelt alike.
    """
    known = {f"--{_spelt(item.name)}" for item in parameters if item.kind is item.KEYWORD_ONLY}
    flags = known | {f"--no-{_spelt(item.name)}" for item in parameters if item.annotation is bool}
    for argument in arguments:
        name = _spelt(argument.partition("=")[0])
        if argument.startswith("-") and not _is_number(argument) and name not in {*flags, *_HELP}:
            raise UsageError(
                f"hwprune {verb} has no such option.",
                got=argument,
                allowed=nearest(name, sorted(known)),
                do=f"see hwprune {verb} --help",
            )


def typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with a reader for its kind of value, where there is one value.

    Help shows no default where it is none or empty: what then happens stands in the text.
    """
    import tyro

    kinds = _alternatives(parameter.annotation)
    annotation = parameter.annotation
    if len(kinds) == 1 and kinds[0] is not bool and (reader := _reader(parameter.name, kinds[0])):
        annotation = Annotated[annotation, reader]
    if parameter.default in (None, "", (), 0):
        annotation = Annotated[annotation, tyro.conf.arg(help_behavior_hint="")]
    return parameter.replace(annotation=annotation)


def _reader(name: str, kind: Any) -> Any:
    """How tyro shall read one value of `kind`, or None where its own way is right."""
    from tyro.constructors import PrimitiveConstructorSpec

    read: Callable[[str], Any]
    if get_origin(kind) is Literal:
        choices = tuple(map(str, get_args(kind)))
        metavar, read = "{" + ",".join(choices) + "}", _choice(name, choices)
    elif kind in _NUMBERS:
        metavar, read = _NUMBERS[kind][0], _number(name, kind)
    elif kind is Path:
        metavar, read = "PATH", Path
    else:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda value: value is None or not isinstance(value, list),
        str_from_instance=lambda value: [str(value)],
    )


def _choice(name: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise UsageError(
                "There is no such choice.", where=_option(name), got=text, allowed=nearest(text, choices)
            )
        return text

    return read


def _number(name: str, kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise UsageError(
                "The option takes another kind of value.",
                where=_option(name),
                got=text,
                allowed=_NUMBERS[kind][1],
            ) from None

    return read


def _alternatives(annotation: Any) -> list[Any]:
    """The types of which a value is one; None, for a value that is not given, does not count."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spelt(name: str) -> str:
    return name.replace("_", "-")


def _option(name: str) -> str:
    return f"--{_spelt(name)}"
