"""Run a command in a terminal of its own and draw what is left on the screen as SVG.

    python docs/tools/record.py docs/result.svg --without "Layers, unpruned" -- hwprune report

Progress bars come and go as they do for a person; the picture has what stays. `--without` leaves out one
table, by the beginning of its title.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS = 92, 50
_STEERING = re.compile(r"(\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r)")


def recorded(command: list[str]) -> tuple[str, int]:
    """What a command writes to a terminal, and its exit code."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    dumb = {"COLUMNS", "LINES", "NO_COLOR"}
    environment = {name: value for name, value in os.environ.items() if name not in dumb}
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env={**environment, "TERM": "xterm-256color"}
    )
    os.close(its)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal is gone with its last process
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode("utf-8", "replace"), process.wait()


def screen(stream: str) -> list[str]:
    """The lines that stay, with their colours: obeys `line up`, `erase line` and `carriage return`."""
    lines, row = [""], 0
    for piece in re.split(r"(\n)|" + _STEERING.pattern, stream):
        if piece is None:  # the other of the two patterns
            continue
        if piece == "\n":
            row += 1
            lines += [""] * (row - len(lines) + 1)
        elif piece.endswith("A") and _STEERING.fullmatch(piece):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece.endswith("K") and _STEERING.fullmatch(piece):
            lines[row] = ""
        elif not _STEERING.fullmatch(piece):
            lines[row] += piece
    return lines


def without_table(lines: list[str], title: str) -> list[str]:
    """The lines without the table of a title: from it to the table's lower edge."""
    plain = [Text.from_ansi(line).plain for line in lines]
    begin = next(row for row, line in enumerate(plain) if line.startswith(title))
    end = next(row for row in range(begin, len(plain)) if plain[row].startswith("└"))
    return lines[:begin] + lines[end + 1 :]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture", type=Path, help="the SVG to write")
    parser.add_argument("--without", default="", help="beginning of the title of a table to leave out")
    parser.add_argument("command", nargs="+", help="the command, after --")
    options = parser.parse_args()
    stream, code = recorded(options.command)
    if code:
        sys.exit(f"the command ended with {code}:\n{stream}")
    lines = screen(stream)
    if options.without:
        lines = without_table(lines, options.without)
    with open(os.devnull, "w") as nowhere:
        console = Console(
            record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor"
        )
        console.print(Text(f"$ {shlex.join(options.command)}", style="bold"))
        for line in "\n".join(lines).strip().split("\n"):
            console.print(Text.from_ansi(line))
        picture = console.export_svg(title="hwprune")
    options.picture.write_text(re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.S), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
