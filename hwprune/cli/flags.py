"""What the options of a verb accept: read, refused and shown in help in one way."""

from __future__ import annotations

import math
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from hwprune.errors import UsageError, nearest

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Sequence

_NUMBERS: dict[type, tuple[str, str]] = {int: ("INT", "a whole number"), float: ("FLOAT", "a number")}
_HELP = ("-h", "--help")
_COMPLETION = "--tyro-"


class Words:
    """Checks the words of a command before they are parsed.

    Args:
        verb: The verb.
        parameters: What it takes.
        repeated: Options that may be given several times.
    """

    def __init__(
        self, verb: str, parameters: Sequence[inspect.Parameter], repeated: Sequence[str] = ()
    ) -> None:
        self._verb, self._repeated = verb, {_flag(name) for name in repeated}
        self._options = {_flag(item.name): item for item in parameters if item.kind is item.KEYWORD_ONLY}
        switches = [item.name for item in self._options.values() if item.annotation is bool]
        self._switches = {*map(_flag, switches), *(f"--no-{_spelt(name)}" for name in switches)}
        self._places = [item for item in parameters if item.kind is item.POSITIONAL_ONLY]

    def checked(self, words: Sequence[str]) -> list[str]:
        """The words, each value that looks like an option joined to its option.

        Raises:
            UsageError: An option that there is not, or that is given twice; one without its value, or a
                switch with one; too many or too few other words.
        """
        if any(word in _HELP for word in words):
            return ["--help"]
        checked: list[str] = []
        given: set[str] = set()
        others: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word.startswith(_COMPLETION):
                return list(words)
            if not word.startswith("-") or _is_number(word):
                others.append(word)
                checked.append(word)
                continue
            flag = self._known(word, given)
            given.add(flag)
            values = [] if "=" in word else self._values(flag, rest)
            joined = len(values) == 1 and values[0].startswith("-")
            checked += [f"{word}={values[0]}"] if joined else [word, *values]
        self._count(others)
        return checked

    def _known(self, word: str, given: set[str]) -> str:
        flag = _spelt(word.partition("=")[0])
        if flag not in self._options and flag not in self._switches:
            raise UsageError(
                f"hwprune {self._verb} has no such option.",
                got=word,
                allowed=nearest(flag[2:], (name[2:] for name in self._options), prefix="--"),
                do=f"see hwprune {self._verb} --help",
            )
        if flag in given and flag not in self._repeated:
            raise UsageError("An option is given twice.", got=flag, allowed="one value")
        if "=" in word and flag in self._switches:
            raise UsageError("A switch takes no value.", got=word, allowed=flag)
        return flag

    def _values(self, flag: str, rest: list[str]) -> list[str]:
        """Take the values of an option from the words that follow it."""
        if flag in self._switches:
            return []
        several = _is_several(self._options[flag].annotation) and flag not in self._repeated
        values: list[str] = []
        while rest and not self._is_option(rest[0]) and (several or not values):
            values.append(rest.pop(0))
        if not values:
            raise UsageError("An option lacks its value.", where=flag, do=f"see hwprune {self._verb} --help")
        return values

    def _is_option(self, word: str) -> bool:
        flag = _spelt(word.partition("=")[0])
        return word.startswith("--") and (flag in self._options or flag in self._switches)

    def _count(self, others: list[str]) -> None:
        least = sum(item.default is item.empty for item in self._places)
        most = math.inf if any(_is_several(item.annotation) for item in self._places) else len(self._places)
        names = [item.name.upper() for item in self._places]
        allowed = " ".join(["hwprune", self._verb, *names, "[OPTIONS]"])
        do = f"see hwprune {self._verb} --help"
        if len(others) < least:
            raise UsageError(f"hwprune {self._verb} lacks its {names[len(others)]}.", allowed=allowed, do=do)
        if len(others) > most:
            extra = " ".join(others[len(self._places) :])
            raise UsageError("There are words that belong to no option.", got=extra, allowed=allowed, do=do)


def typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter with a reader for its kind of value, where there is one value.

    Help shows no default where it is none or empty: what then happens stands in the text.
    """
    import tyro

    kinds = _alternatives(parameter.annotation)
    annotation = parameter.annotation
    own = parameter.kind is parameter.POSITIONAL_ONLY
    where = parameter.name.upper() if own else _flag(parameter.name)
    if len(kinds) == 1 and kinds[0] is not bool and (reader := _reader(where, kinds[0])):
        annotation = Annotated[annotation, reader]
    if parameter.default in (None, "", (), 0):
        annotation = Annotated[annotation, tyro.conf.arg(help_behavior_hint="")]
    return parameter.replace(annotation=annotation)


def _reader(where: str, kind: Any) -> Any:
    """How tyro shall read one value of `kind`, or None where its own way is right."""
    from tyro.constructors import PrimitiveConstructorSpec

    read: Callable[[str], Any]
    if get_origin(kind) is Literal:
        choices = tuple(map(str, get_args(kind)))
        metavar, read = "{" + ",".join(choices) + "}", _choice(where, choices)
    elif kind in _NUMBERS:
        metavar, read = _NUMBERS[kind][0], _number(where, kind)
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


def _choice(where: str, choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            allowed = nearest(text, choices)
            raise UsageError("There is no such choice.", where=where, got=text, allowed=allowed)
        return text

    return read


def _number(where: str, kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            allowed = _NUMBERS[kind][1]
            raise UsageError("This is another kind of value.", where=where, got=text, allowed=allowed)
        return value

    return read


def _alternatives(annotation: Any) -> list[Any]:
    """The types of which a value is one; None, for a value that is not given, does not count."""
    if get_origin(annotation) in (Union, UnionType):
        return [kind for kind in get_args(annotation) if kind is not NoneType]
    return [annotation]


def _is_several(annotation: Any) -> bool:
    return any(get_origin(kind) is tuple for kind in _alternatives(annotation))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _spelt(name: str) -> str:
    return name.replace("_", "-")


def _flag(name: str) -> str:
    return f"--{_spelt(name)}"
