"""What the pages say: their fenced blocks, the commands in them, and the commands named in sentences."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "lut/README.md", "benchmarks/README.md"),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", flags=re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


@dataclass(frozen=True)
class Command:
    """One command of a page, as it would be typed."""

    page: str
    text: str


def text_of(page: str) -> str:
    """A page as it is written."""
    return (ROOT / page).read_text("utf-8")


def fences(page: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return _FENCE.findall(text_of(page))


def blocks(page: str, language: str) -> list[str]:
    """The content of the blocks in one language."""
    return [content for name, content in fences(page) if name == language]


def commands(page: str) -> list[Command]:
    """The shell commands of a page: a comment ends a line, `&&` separates two, a backslash joins lines."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            parts = re.sub(r"(^|\s)#.*", "", line).split("&&")
            found += [Command(page, part.strip()) for part in parts if part.strip()]
    return found


def mentions(page: str) -> list[str]:
    """Code inside sentences: what stands between single backquotes."""
    prose = _FENCE.sub("", text_of(page))
    return [" ".join(found.split()) for found in _INLINE.findall(prose)]
