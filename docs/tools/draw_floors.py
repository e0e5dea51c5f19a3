"""Draw docs/floors.svg: the packages of hwprune floor by floor, from pyproject.toml and their own words.

python docs/tools/draw_floors.py           # write the picture
python docs/tools/draw_floors.py --check   # exit code 1 when it is not current
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
import tomllib
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "floors.svg"
WIDTH, GAP, LINE, LETTER = 960, 10, 15, 6.8  # pixels; LETTER: of one small letter
STYLE = """
text { font-family: system-ui, sans-serif; fill: #17323a }
.name { font-size: 15px; font-weight: 600 } .words { font-size: 12px }
rect { fill: #e3f1f0; stroke: #2a7f78 } rect.torch { fill: #f6ecd9; stroke: #a9782a }
svg { background: #ffffff }
"""


def contracts() -> list[dict[str, Any]]:
    """The import rules."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def floors() -> list[list[str]]:
    """Modules of each floor, from the top; those that are not written yet are left out."""
    layers = next(contract for contract in contracts() if contract["id"] == "floors")["layers"]
    names = [[name for name in re.findall(r"[a-z]+", layer) if source(name)] for layer in layers]
    return [floor for floor in names if floor]


def no_torch() -> set[str]:
    """Modules that are checked to import no torch."""
    kept = next(contract for contract in contracts() if contract["id"] == "no-torch")["source_modules"]
    return {name.removeprefix("hwprune.") for name in kept}


def source(name: str) -> Path | None:
    """The file that holds a module's docstring."""
    places = (ROOT / "hwprune" / name / "__init__.py", ROOT / "hwprune" / f"{name}.py")
    return next((path for path in places if path.is_file()), None)


def words(name: str) -> str:
    """The first sentence of a module's docstring, without its own name."""
    text = ast.get_docstring(ast.parse((source(name) or Path()).read_text("utf-8"))) or ""
    sentence = " ".join(text.split("\n\n")[0].split()).replace("`", "")
    sentence = re.split(r"(?<=[a-z)])\.(?: |$)", sentence)[0]
    sentence = re.sub(rf"^{name}(\.toml)?: ", "", sentence, flags=re.IGNORECASE)
    return sentence[:1].upper() + sentence[1:]


def picture() -> str:
    """The SVG."""
    light, parts, y = no_torch(), [], GAP
    for floor in floors():
        width = (WIDTH - GAP * (len(floor) + 1)) / len(floor)
        told = {name: textwrap.wrap(words(name), int((width - 20) / LETTER)) for name in floor}
        height = 34 + LINE * max(map(len, told.values()))
        for column, name in enumerate(floor):
            x = GAP + column * (width + GAP)
            kind = "" if name in light else ' class="torch"'
            parts.append(f'<rect{kind} x="{x:.0f}" y="{y}" width="{width:.0f}" height="{height}" rx="6"/>')
            parts.append(f'<text class="name" x="{x + 10:.0f}" y="{y + 21}">{name}</text>')
            parts += [
                f'<text class="words" x="{x + 10:.0f}" y="{y + 38 + LINE * row}">{escape(line)}</text>'
                for row, line in enumerate(told[name])
            ]
        y += height + GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">'
    title = "<title>The floors of hwprune; a module imports only from floors below its own</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when not current")
    if parser.parse_args().check:
        return int(not PICTURE.is_file() or PICTURE.read_text("utf-8") != picture())
    PICTURE.write_text(picture(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
