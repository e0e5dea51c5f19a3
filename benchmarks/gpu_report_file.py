"""The file that `gpu_report.py` writes: parts of one set of devices and libraries, with what follows."""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from hwprune.environment import IDENTITY, device_fingerprint, library_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

GOALS = {"mean_error": 0.03, "within_5_percent": 0.95}  # at most, at least


def identity(devices: Iterable[str]) -> dict[str, Any]:
    """What all parts of one file share: the devices themselves, and the libraries."""
    facts = {}
    for device in sorted(set(devices)):
        found = device_fingerprint(device)
        facts[device] = {k: v for k, v in found.items() if k in IDENTITY or k.startswith("gpu_")}
    return {"devices": facts, "libraries": library_versions()}


class Report:
    """The file of results, written after each part.

    Args:
        path: The file; parts in it are kept.
        who: What `identity` tells of this run.
        fresh: Begin anew, whatever is there.

    Raises:
        ValueError: The file was made on other devices or with other libraries, so parts would be mixed up.
    """

    def __init__(self, path: Path, who: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path, self.who = path, dict(who)
        self.parts: dict[str, Any] = {}
        if path.is_file() and not fresh:
            kept = json.loads(path.read_text())
            if different := [key for key in self.who if kept.get(key) != self.who[key]]:
                raise ValueError(f"{path} was made with other {' and '.join(different)}")
            self.parts = kept["parts"]

    def part(self, name: str, run: Callable[[], Any]) -> Any:
        """Run a part unless it is in the file; keep what comes out, or what went wrong."""
        if name in self.parts and "error" not in self.parts[name]:
            print(f"{name}: kept from an earlier run", flush=True)
            return self.parts[name]
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        try:
            found = run()
        except KeyboardInterrupt:
            raise
        except Exception as error:  # the other parts are worth having all the same
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        self.parts[name] = {**found, "seconds": round(time.perf_counter() - started, 1)}
        self.save()
        return self.parts[name]

    def save(self) -> None:
        """Write the file, whole or not at all."""
        content = {
            "command": ["python", *sys.argv],
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            **self.who,
            "goals": {"limits": GOALS, "tables": judged(self.parts)},
            "runtimes": compared(self.parts),
            "parts": self.parts,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(content, indent=1) + "\n")
        draft.replace(self.path)


def judged(parts: Mapping[str, Any]) -> dict[str, bool]:
    """Name of each table that was judged -> whether its errors keep to the goals."""
    return {
        name: part["mean_error"] <= GOALS["mean_error"]
        and part["within_5_percent"] >= GOALS["within_5_percent"]
        for name, part in parts.items()
        if "mean_error" in part
    }


def compared(parts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Unpruned latencies of one model, batch, device and kind of buffers by all runtimes and number formats.

    Fastest first. Cold caches are compared with cold ones only: with `rotating` buffers all is slower.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for name, part in parts.items():
        if name.startswith("unpruned/") and "ms" in part:
            key = f"{part['model']} on {part['device']}, batch {part['batch']}"
            if (kind := part.get("buffers", "hot")) != "hot":
                key += f", {kind} buffers"
            row = {key: part[key] for key in ("profile", "runtime", "precision", "ms", "error_ms")}
            found.setdefault(key, []).append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row["ms"])
        for row in rows:
            row["times_the_fastest"] = round(row["ms"] / rows[0]["ms"], 3)
    return found
