"""What `trace` finds in networks of timm and torchvision, how long it takes, and whether all of it is right.

    python benchmarks/trace_zoo.py                   # every network at its own small image size
    python benchmarks/trace_zoo.py timm:mixnet_s     # some of them: printed, nothing is written
    python benchmarks/trace_zoo.py --size 224        # besides, the seconds of trace at 224 pixels
    python benchmarks/trace_zoo.py --before          # besides, the seconds of the tracer of commit c0db9e9
    python benchmarks/trace_zoo.py --known           # the page from the records there are, nothing is run
    python benchmarks/trace_zoo.py --rivals          # besides, Torch-Pruning and onnxsim on the same networks

Each network has a process of its own with one thread and a limit of time for each part. Every record is kept
in `runs/trace_zoo/`, so that a run which was stopped goes on; records that other code made are made again.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of all processes that are started

import argparse
import contextlib
import hashlib
import importlib.util
import io
import json
import multiprocessing
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import trace_page
from common import RESULTS, provenance
from trace_networks import NETWORKS, Network
from trace_rivals import ONNXSIM

from hwprune.models.registry import default_image_size

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "trace_zoo"
BEFORE = "c0db9e9"  # the last commit that traced with Torch-Pruning's dependency graph
RIVALS = {"torch_pruning": "torch-pruning==1.6.1", "onnxsim": "onnxsim==0.8.1"}
ENOUGH = 0.8  # share of the MACs that should be free to go
PARTS = 8  # of a job, each with its own limit of time
TOO_LONG = "ran past all limits"
PRELOADED = (
    *("torch.onnx", "torch.utils.flop_counter", "torchvision", "timm", "onnxruntime"),
    *(
        "hwprune.structure.trace",
        "hwprune.structure.prune",
        "hwprune.structure.onnx_slice",
        "hwprune.exporter",
    ),
)
# The 24 networks of the zoo before this one, each at the size that it was designed for.
PRESENT = (
    *(
        f"torchvision:{name}"
        for name in (
            *("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "vgg16_bn", "densenet121"),
            *("googlenet", "inception_v3", "squeezenet1_0", "efficientnet_b0", "mnasnet1_0"),
            *("regnet_y_400mf", "resnext50_32x4d", "shufflenet_v2_x1_0", "convnext_tiny"),
        )
    ),
    *("resnet20", "resnet56", "resnet110", "vgg16_bn", "vgg16_bn_cifar", "mobilenet_v1"),
    *("mobilenet_v1_cifar", "mobilenet_v2", "mobilenet_v2_cifar"),
)


def main() -> None:
    """Make what is missing of the records; print, and write where every network was asked for."""
    options = arguments()
    networks = [one for one in NETWORKS if not options.names or one.name in options.names]
    unknown = set(options.names) - {one.name for one in networks}
    if unknown:
        sys.exit(f"not in benchmarks/trace_networks.py: {', '.join(sorted(unknown))}")
    if options.known:
        networks = [one for one in networks if kept(kept_at("check", one))]
    rows = {one.name: record("check", one, one.size, options) for one in networks}
    timed = {}
    if options.size:
        sizes = {one.name: max(options.size, one.size) for one in networks}  # some take no smaller images
        timed = {one.name: record("time", one, sizes[one.name], options) for one in networks}
    ratio = ratios(options) if options.before else None
    rivals = {job: rival(job, networks, options) for job in RIVALS} if options.rivals else {}
    figures = summary(networks, rows, timed, ratio, rivals)
    if not options.names:
        content = {
            **figures,
            "by_network": rows,
            "at_size": {"size": options.size, "by_network": timed},
            "ratios": ratio,
            "rivals_by_network": rivals,
            "provenance": provenance(),
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "trace_zoo.json").write_text(json.dumps(content, indent=1) + "\n")
        trace_page.write(networks, content)
    print(json.dumps(figures))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; all when none is given")
    parser.add_argument("--size", type=int, help="also time trace on images of so many pixels")
    parser.add_argument("--before", action="store_true", help=f"also time the tracer of commit {BEFORE}")
    parser.add_argument("--rivals", action="store_true", help="also run Torch-Pruning and onnxsim")
    parser.add_argument("--limit", type=int, default=60, help="seconds for each part of a job")
    parser.add_argument("--fresh", action="store_true", help="make every record again")
    parser.add_argument("--stale", action="store_true", help="take records of other code as they are")
    parser.add_argument("--known", action="store_true", help="only networks with a record, taken as it is")
    options = parser.parse_args()
    options.stale |= options.known
    return options


def record(
    job: str,
    network: Network,
    size: int,
    options: argparse.Namespace,
    *,
    alone: bool = False,
    source: Path | None = None,
) -> dict[str, Any]:
    """The record of one job, from the run's folder or made now."""
    path = kept_at(f"{job}-before" if source else f"{job}-alone" if alone else job, network)
    path.parent.mkdir(parents=True, exist_ok=True)
    key = {"size": size, "limit": options.limit, "code": code_of(job) if source is None else BEFORE}
    if not options.fresh:
        before = kept(path)
        if before.get("key") == key or (options.stale and before):
            return before
    found = run(job, network.name, size, options.limit, path, source, alone)
    found["key"] = key
    path.write_text(json.dumps(found, indent=1) + "\n")
    told = [found["outcome"], f"{found['seconds']} s"] if "seconds" in found else [found["outcome"]]
    told += [found["message"]] if found.get("message") else []
    told += [f"{100 * found['removable']:.0f} % can go"] if "removable" in found else []
    told += [f"{found['blocks']} blocks"] if found.get("blocks") else []
    told += found.get("wrong") or []
    print(f"{job} {network.name}: {', '.join(told)}"[:300], file=sys.stderr, flush=True)
    return found


def kept_at(folder: str, network: Network) -> Path:
    """Where the record of a network lies."""
    return RUNS / folder / f"{network.name.replace(':', '+')}.json"


def kept(path: Path) -> dict[str, Any]:
    """A finished record; empty where there is none yet."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if "key" in found else {}


def code_of(job: str) -> str:
    """A digest of the code that a job's records depend on."""
    here = [Path(__file__).with_name(f"trace_{name}.py") for name in ("child", "masks", "rivals")]
    package = ROOT / "hwprune"
    own = [] if job in RIVALS else [*package.glob("structure/**/*.py"), *package.glob("*export*.py")]
    text = b"".join(path.read_bytes() for path in sorted([*here, *own]))
    return hashlib.sha256(text).hexdigest()[:12]


def run(
    job: str, name: str, size: int, limit: int, path: Path, source: Path | None = None, alone: bool = False
) -> dict[str, Any]:
    """Do a job in a process of its own, and say how that ended where it could not."""
    path.unlink(missing_ok=True)
    given = (job, name, size, limit, path)
    code, errors = started(given, source) if alone else forked(given)
    found = json.loads(path.read_text()) if path.exists() else {"part": "start"}
    if code == 0:
        return found
    if code == -signal.SIGALRM or errors == TOO_LONG:
        message = f"over {limit} s in {found['part']}"
        # With a verdict of its own it was traced; `verified` says how far the checks came.
        return {**found, "outcome": found.get("outcome", "timeout"), "message": message}
    last = errors.strip().splitlines()[-1][:300] if errors.strip() else ""
    return {**found, "outcome": "crash", "message": f"exit code {code} in {found['part']} {last}".strip()}


def forked(given: tuple[Any, ...]) -> tuple[int, str]:
    """Exit code of a process that finds the packages loaded, which takes longer than most jobs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    child = context.Process(target=in_session, args=given)
    child.start()
    child.join(PARTS * given[3] + 120)
    late = child.is_alive()
    end_session(child.pid)
    child.join()
    return child.exitcode or 0, TOO_LONG if late else ""


def in_session(*given: Any) -> None:
    """Do a job in a session of its own, so that what it starts can be ended with it."""
    import trace_child

    os.setsid()
    trace_child.work(*given)


def started(given: tuple[Any, ...], source: Path | None) -> tuple[int, str]:
    """Exit code and error output of a new process, which may take hwprune from elsewhere."""
    environment = {**os.environ, **({"PYTHONPATH": str(source)} if source else {})}
    script = Path(__file__).with_name("trace_child.py")
    child = subprocess.Popen(
        [sys.executable, str(script), *map(str, given)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = child.communicate(timeout=PARTS * given[3] + 120)
    except subprocess.TimeoutExpired:
        errors = TOO_LONG
    end_session(child.pid)
    return child.wait(), errors


def end_session(leader: int | None) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if leader is not None:
            os.killpg(leader, signal.SIGKILL)


def ratios(options: argparse.Namespace) -> dict[str, Any] | None:
    """Seconds of trace, now and before, one after the other for each network of the zoo before this one."""
    if importlib.util.find_spec("torch_pruning") is None:
        print(f"no torch-pruning here, which the tracer of {BEFORE} needs: no ratio", file=sys.stderr)
        return None
    source = RUNS / "before"
    if not (source / "hwprune").is_dir():
        command = ["git", "archive", BEFORE, "hwprune"]
        packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(source, filter="data")
    pairs = {}
    for name in PRESENT:
        size = default_image_size(name)
        network = Network(name, "", size)
        pairs[name] = [
            record("time", network, size, options, alone=True, source=place) for place in (None, source)
        ]
    seconds = {name: [one.get("seconds") for one in both] for name, both in pairs.items()}
    whole = [both for both in seconds.values() if None not in both]
    total = sum(now for now, _ in whole) / sum(before for _, before in whole) if whole else None
    return {
        "ratio": total and round(total, 3),
        "median": whole and round(median(now / before for now, before in whole), 3),
        "compared": len(whole),
        "seconds_now_before": seconds,
    }


def rival(job: str, networks: list[Network], options: argparse.Namespace) -> dict[str, Any] | str:
    """The records of one rival, or why there are none."""
    if options.known:
        found = {one.name: kept(kept_at(job, one)) for one in networks}
        return {name: row for name, row in found.items() if row} or "not run yet"
    if job == "onnxsim" and not ONNXSIM.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(ONNXSIM)]
        done = subprocess.run([*command, RIVALS[job]], capture_output=True, text=True)
        if done.returncode:
            return f"does not install: {done.stderr.strip()[-300:]}"
    if job == "torch_pruning" and importlib.util.find_spec("torch_pruning") is None:
        return f"not installed: pip install {RIVALS[job]}"
    return {one.name: record(job, one, one.size, options) for one in networks}


def summary(
    networks: list[Network],
    rows: dict[str, Any],
    timed: dict[str, Any],
    ratio: dict[str, Any] | None,
    rivals: dict[str, Any],
) -> dict[str, Any]:
    """The figures of the whole zoo."""
    outcomes = Counter(row["outcome"] for row in rows.values())
    shares = [rows[one.name].get("removable", 0.0) for one in networks if not one.attention]
    late = [row["key"]["limit"] for row in timed.values() if row["outcome"] == "timeout"]
    seconds = [row["seconds"] for row in timed.values() if "seconds" in row] + late
    codes = {row["key"]["code"] for row in rows.values()}
    return {
        "listed": len(NETWORKS),
        "networks": len(networks),
        "codes": len(codes),
        "families": len({one.family for one in networks}),
        "traced": outcomes["traced"] + outcomes["proved"],
        "proved": outcomes["proved"],
        "wrong": sum(bool(row.get("wrong")) for row in rows.values()),
        "blocks_found": blocks_found(rows),
        "tracebacks": outcomes["traceback"] + outcomes["crash"],
        "refused": outcomes["refused"],
        "timeouts": outcomes["timeout"],
        "verified": sum(row.get("part") == "done" for row in rows.values()),
        "removable_80_share": share(sum(one >= ENOUGH for one in shares), len(shares)),
        "median_seconds": round(median(seconds), 2) if seconds else None,
        "max_seconds": max(seconds) if seconds else None,
        "time_ratio": ratio and ratio["ratio"],
        "rivals": {job: tally(found) for job, found in rivals.items()},
    }


def blocks_found(rows: dict[str, Any]) -> dict[str, int]:
    """How many networks have blocks that may go, how many blocks, and how many networks are wrong without."""
    found = [row for row in rows.values() if row.get("blocks")]
    wrong = sum(bool(row.get("wrong_without_blocks")) for row in found)
    return {"networks": len(found), "blocks": sum(row["blocks"] for row in found), "wrong": wrong}


def share(part: int, whole: int) -> float | None:
    """A share, None of nothing."""
    return round(part / whole, 4) if whole else None


def tally(found: dict[str, Any] | str) -> dict[str, Any] | str:
    """How many networks a rival prunes rightly, wrongly and not at all."""
    if isinstance(found, str):
        return found
    outcomes = Counter(row["outcome"] for row in found.values())
    removed = [row["removed"] for row in found.values() if row["outcome"] == "right"]
    return {
        "networks": len(found),
        "right": outcomes["right"],
        "wrong": outcomes["wrong"],
        "crashed": outcomes["traceback"] + outcomes["crash"],
        "does_not_run": outcomes["does not run"],
        "timeouts": outcomes["timeout"],
        "not_exported": outcomes["not exported"],
        "median_removed_of_right": round(median(removed), 3) if removed else None,
    }


if __name__ == "__main__":
    main()
