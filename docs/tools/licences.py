"""Write docs/licences.md: what hwprune needs at run time, and under which licences, from installed metadata.

    python docs/tools/licences.py           # write the page
    python docs/tools/licences.py --check   # exit code 1 when the page is not current

Versions, and CUDA libraries, are left out: the page is the same on every Linux machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution

PAGE = Path(__file__).parents[1] / "licences.md"
HEAD = """# Licences of dependencies

Made by `docs/tools/licences.py` from the metadata of the installed packages; do not edit. hwprune itself is
under Apache-2.0. Below is all that `pip install hwprune` brings on Linux, but for NVIDIA's CUDA libraries and
triton, which torch brings where it was built for them: CUDA is under NVIDIA's own terms. Optional extras are
not listed.

| package | licence, as the package states it | needed by |
|---|---|---|
"""
# What metadata says in many words, or with the whole text of the licence.
_SHORT = {
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_PLATFORM = re.compile(r"^(nvidia|cuda|triton)")


def licence(package: Distribution) -> str:
    """The licence a package names: SPDX expression, else classifiers, else one line of text.

    Raises:
        ValueError: It names none.
    """
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    named = [
        text.rpartition("::")[2].strip() for text in about.get_all("Classifier", []) if "License ::" in text
    ]
    named = [name for name in named if name != "OSI Approved"]
    line = str(about.get("License") or "").strip().partition("\n")[0]
    found = named or [line] * bool(line)
    if not found:
        raise ValueError(f"{about['Name']} names no licence")
    return ", ".join(_SHORT.get(name, name) for name in found)


def needed(name: str) -> Iterator[str]:
    """Packages that a package needs, without its extras and without what other platforms need."""
    for text in distribution(name).requires or ():
        one = Requirement(text)
        here = one.marker is None or one.marker.evaluate({"extra": "", "python_version": "3.14"})
        if here and not _PLATFORM.match(canonicalize_name(one.name)):
            yield canonicalize_name(one.name)


def page() -> str:
    """The page as it should be."""
    wanted_by: dict[str, set[str]] = {}
    left = ["hwprune"]
    while left:
        name = left.pop()
        for other in needed(name):
            if other not in wanted_by:
                left.append(other)
            wanted_by.setdefault(other, set()).add(name)
    rows = []
    for name, whom in sorted(wanted_by.items()):
        rows.append(f"| {name} | {licence(distribution(name))} | {', '.join(sorted(whom))} |")
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when not current")
    options = parser.parse_args()
    try:
        text = page()
    except (PackageNotFoundError, ValueError) as error:
        sys.exit(f"{error}: install hwprune with all its dependencies first")
    if options.check:
        return int(PAGE.read_text("utf-8") != text)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
