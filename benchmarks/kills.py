"""Kills every verb with SIGKILL at random instants, starts it again, and looks at what is left.

    python benchmarks/kills.py --kills 100

The last line, which `results/kills.json` holds too, is JSON: `kills`; `verbs`, how many of them each verb
had, and `during`, in which of its stages; `corrupt`, files that were damaged after a kill; `lost_units`,
units of work (epochs, networks) that had been finished and were done again, with `lost` by stage;
`half_written`, temporaries found after kills, and `leftovers`, those that the next run did not remove;
`different`, results that an unbroken run does not give.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import finish
from kill_runs import OPTIONS, Killer, Runner

_SHARES = {"profile": 0.22, "search": 0.3, "train": 0.22, "export": 0.13, "report": 0.13}


def shares(kills: int) -> dict[str, int]:
    """How many kills each verb has; the rest goes to the search, which does most."""
    counts = {verb: int(_SHARES[verb] * kills) for verb in OPTIONS}
    counts["search"] += kills - sum(counts.values())
    return counts


def main() -> int:
    """Kill, print the figures; the exit code is 1 when anything was damaged or came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killer = Killer(Runner(folder), folder, options.seed)
        for verb, count in shares(options.kills).items():
            killer.kill(verb, count)
            print(f"{verb}: killed {killer.found.kills[verb]} times", file=sys.stderr)
    found = killer.found
    for line in (*found.corrupt, *found.different):
        print(line, file=sys.stderr)
    figures = {
        "kills": found.kills.total(),
        "verbs": dict(found.kills),
        "during": {stage.replace(f"{name}/", ""): count for stage, count in found.during.items()},
        "corrupt": len(found.corrupt),
        "lost_units": found.units.lost.total(),
        "lost": {title: count for title, count in found.units.lost.items() if count},
        "half_written": found.half_written,
        "leftovers": found.leftovers,
        "different": len(found.different),
    }
    finish("kills", figures)
    return int(bool(found.corrupt or found.different or found.leftovers))


if __name__ == "__main__":
    sys.exit(main())
