"""Work that several processes share: each takes what no other has taken."""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Task(NamedTuple):
    """Something to do once; what it needs, and what it leaves, is on record elsewhere.

    Attributes:
        work: Does it, or sees that it is done.
        claim: File that is locked by the process that does it.
    """

    work: Callable[[], None]
    claim: Path


def one_thread_each() -> None:
    """To be called before anything is computed, where there will be copies.

    A copy has none of the threads that OpenMP started in the process it was made from, and would wait for
    them for ever.
    """
    torch.set_num_threads(1)
    threadpool_limits(1)


def in_copies(copies: int, parts: Sequence[Sequence[Task]]) -> None:
    """Do all tasks in so many processes, which start as copies of this one with all it has loaded.

    Args:
        copies: Processes.
        parts: Tasks in their order; the first of all parts come before the second of any.

    Raises:
        SystemExit: A copy failed.
    """
    rows = itertools.zip_longest(*parts)
    tasks = [task for row in rows for task in row if task is not None]
    for task in tasks:
        _failed(task).unlink(missing_ok=True)
    if copies == 1:
        do_all(tasks)
        return
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=do_all, args=(tasks,)) for _ in range(copies)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if failed := sum(process.exitcode != 0 for process in processes):
        sys.exit(f"{failed} of {copies} copies failed")


def do_all(tasks: Sequence[Task]) -> None:
    """Do the tasks that nobody does; come back for those of others until all are done.

    Raises:
        SystemExit: Some failed, each with its traceback on standard error; the others are done.
    """
    failed = 0
    while tasks:
        left = []
        for task in tasks:
            try:
                with FileLock(task.claim, timeout=0):
                    failed += not _done(task)
            except Timeout:
                left.append(task)
        if len(left) == len(tasks):
            time.sleep(1)
        tasks = left
    if failed:
        sys.exit(f"{failed} tasks failed")


def _done(task: Task) -> bool:
    """Do a task; one that fails is left alone by all copies from then on."""
    if _failed(task).exists():
        return True
    try:
        task.work()
    except Exception:
        _failed(task).touch()
        traceback.print_exc()
        return False
    return True


def _failed(task: Task) -> Path:
    return task.claim.with_suffix(".failed")
