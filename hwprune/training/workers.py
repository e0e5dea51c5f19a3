"""The workers of one run: processes that `torchrun` started, which train together.

Without torchrun there is one worker: nothing is started, torch is not loaded, and every function answers at
once. Figures travel between workers as plain tensors and all else as JSON, so nothing that arrives is ever
executed (torch's own object collectives would unpickle it).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from hwprune.errors import UsageError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

_T = TypeVar("_T")
_PATIENCE = timedelta(days=30)  # worker 0 may measure, or read images, for as long as it takes
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class _Joined:
    rank: int
    world: int
    waiting: Any  # the group that workers wait in: gloo's, which sleeps, and patient


_joined: _Joined | None = None


def rank() -> int:
    """The number of this worker, from 0."""
    return _joined.rank if _joined else 0


def world() -> int:
    """How many workers there are."""
    return _joined.world if _joined else 1


def is_main() -> bool:
    """Whether this is worker 0, the one that measures, writes and prints."""
    return rank() == 0


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Be one of the workers that torchrun started, as its environment says; without torchrun, be alone.

    CPU tensors travel by gloo, those of GPUs by NCCL where each worker has a GPU of its own.

    Raises:
        UsageError: The environment names several workers, but not where they meet.
        WorkerError: Another worker is gone, or this one was told to end because of that.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    global _joined
    before = signal.signal(signal.SIGTERM, _told_to_end)  # torchrun sends it when a worker dies
    try:
        _joined = _join()
        yield
        barrier()
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # time to say why this worker ends, which it does next
        _leave(failed=True)
        if _is_loss(error):
            raise _gone() from error
        raise
    _leave()
    _joined = None
    signal.signal(signal.SIGTERM, before)


def _join() -> _Joined:
    # Before torch is loaded: in each run DDP warns that no parameter went unused, as it was told one might.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    from torch import distributed

    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise UsageError(
            "WORLD_SIZE asks for several workers, but the rest of torchrun's environment is not there.",
            got=f"no {', '.join(missing)}",
            do="start hwprune with torchrun --nproc-per-node=N -m hwprune ..., or unset WORLD_SIZE",
        )
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % gpus)
    _take_fair_share_of_cores()
    distributed.init_process_group(_backend(gpus))
    waiting = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return _Joined(distributed.get_rank(), distributed.get_world_size(), waiting)


def _backend(gpus: int) -> str:
    """What tensors travel by: NCCL takes one worker for each GPU; gloo, slower, any number of them."""
    own = 0 < int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= gpus
    return "cpu:gloo,cuda:nccl" if own else "gloo"


def _take_fair_share_of_cores() -> None:
    """Share the physical cores out among this machine's workers.

    torchrun sets OMP_NUM_THREADS to 1 where it is not set, which leaves the other cores idle. Another value
    is the user's, and stays.
    """
    import torch

    from hwprune.runtimes.base import physical_cores

    if os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, physical_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _leave(failed: bool = False) -> None:
    from torch import distributed

    waits_for_others = failed and distributed.is_initialized() and "nccl" in distributed.get_backend_config()
    if distributed.is_initialized() and not waits_for_others:
        distributed.destroy_process_group()


def _told_to_end(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise _gone()


def _gone() -> WorkerError:
    return WorkerError(
        "A worker of this run is gone, so the run ends.",
        where=f"worker {rank()} of {world()}",
        do="torchrun tells which one; what was finished is kept, and the same command, with any number of "
        "workers, goes on from there",
    )


def _is_loss(error: BaseException) -> bool:
    """Whether torch complains about a connection; gloo's complaints have no class of their own."""
    from torch import distributed

    gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return gloo or isinstance(error, distributed.DistError)


def barrier() -> None:
    """Wait, asleep, until all workers are here."""
    if _joined:
        from torch import distributed

        distributed.barrier(group=_joined.waiting)


def share(value: Any = None) -> Any:
    """Give worker 0's value to all workers; the others wait for it, asleep.

    Args:
        value: Something JSON-able; what workers other than 0 pass does not count.
    """
    if not _joined:
        return value
    import torch
    from torch import distributed

    text = json.dumps(value).encode() if is_main() else b""
    size = torch.tensor(len(text))
    distributed.broadcast(size, 0, group=_joined.waiting)
    content = torch.frombuffer(bytearray(text or int(size)), dtype=torch.uint8)
    distributed.broadcast(content, 0, group=_joined.waiting)
    return json.loads(content.numpy().tobytes())


def mine(items: Sequence[_T]) -> Sequence[_T]:
    """This worker's share of `items`: every `world()`-th one."""
    return items[rank() :: world()]


def gather(values: Sequence[float], total: int) -> list[float]:
    """Put the figures for `mine(items)` of all workers together.

    Args:
        values: This worker's figures.
        total: Number of all items.

    Returns:
        The figures of all items, in their order, the same on all workers.
    """
    if not _joined:
        return list(values)
    import torch
    from torch import distributed

    whole = torch.zeros(total, dtype=torch.float64)
    whole[rank() :: world()] = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(whole, group=_joined.waiting)
    return whole.tolist()


def gather_bytes(rows: Sequence[bytes], total: int, size: int) -> list[bytes]:
    """Put the rows for `mine(items)` of all workers together.

    Args:
        rows: This worker's rows, of at most `size` bytes each.
        total: Number of all items.
        size: Bytes of a row; shorter ones are filled up with zeros.

    Returns:
        The rows of all items, in their order, the same on all workers.
    """
    if not _joined:
        return [row.ljust(size, b"\0") for row in rows]
    import torch
    from torch import distributed

    whole = torch.zeros((total, size), dtype=torch.uint8)
    for place, row in zip(range(rank(), total, world()), rows, strict=True):
        whole[place, : len(row)] = torch.frombuffer(bytearray(row), dtype=torch.uint8)
    distributed.all_reduce(whole, group=_joined.waiting)
    return [row.numpy().tobytes() for row in whole]


def summed(tensor: Tensor) -> Tensor:
    """The sum of all workers' tensors, on all of them; `tensor` itself stays as it is."""
    if not _joined:
        return tensor
    whole = tensor.clone()
    begin_sum(whole)()
    return whole


def begin_sum(tensor: Tensor) -> Callable[[], object]:
    """Begin to replace `tensor` by the sum of all workers' tensors; the function returned waits for it.

    All workers must begin their sums in the same order.
    """
    if not _joined:
        return lambda: None
    from torch import distributed

    work = distributed.all_reduce(tensor, async_op=True)
    return work.wait
