"""Two real processes that train together, and what is left when one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import worker_script as script
from safetensors.torch import load_file

from hwprune.errors import UsageError
from hwprune.training import workers
from hwprune.training.evaluation import evaluate
from hwprune.training.loop import train

ROOT = Path(__file__).parents[2]


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two workers of one command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two workers was left with after `script.together`."""
    folder = tmp_path_factory.mktemp("workers")
    done = torchrun(script.__file__, "together", str(folder))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return [load_file(folder / f"worker{rank}.safetensors") for rank in (0, 1)]


def weights(kept, name):
    prefix = f"{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in kept.items() if key.startswith(prefix)}


def test_without_torchrun_there_is_one_worker_and_no_process_group():
    with workers.group():
        assert (workers.rank(), workers.world(), workers.is_main()) == (0, 1, True)
        assert workers.share({"a": 1}) == {"a": 1}
        assert workers.mine([1, 2, 3]) == [1, 2, 3]
        assert workers.gather([0.5, 1.5], 2) == [0.5, 1.5]
        workers.barrier()
        assert not torch.distributed.is_initialized()


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match="torchrun") as error, workers.group():
        pass
    assert "MASTER_ADDR" in str(error.value)


@pytest.mark.slow
def test_figures_and_words_reach_all_workers(both):
    assert [int(kept["rank"]) for kept in both] == [0, 1]
    for kept in both:
        assert kept["gathered"].tolist() == [item / 3 for item in range(7)]
        assert kept["shared"].tolist() == [0, 5], "worker 0's word counts"


@pytest.mark.slow
@pytest.mark.parametrize("name", script.RUNS)
def test_all_workers_end_with_the_same_network_and_figures(both, name):
    for key in both[0]:
        if key.startswith((f"{name}/", f"{name}.")):
            assert torch.equal(both[0][key], both[1][key]), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "pruningnet", "pruningnet_in_backward"])
def test_two_workers_take_the_steps_of_one(both, name):
    net, history, drawn = script.RUNS[name]()
    assert both[1][f"{name}.drawn"].tolist() == drawn
    assert name == "plain" or len({tuple(widths) for widths in drawn}) > 5
    got = weights(both[1], name)
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(got[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
    loss = torch.tensor([epoch.loss for epoch in history.epochs])
    torch.testing.assert_close(both[0][f"{name}.loss"], loss, rtol=1e-4, atol=1e-4)
    top1 = torch.tensor([epoch.top1 for epoch in history.epochs])
    torch.testing.assert_close(both[0][f"{name}.top1"], top1, rtol=0, atol=0.005)


@pytest.mark.slow
def test_with_batch_norm_two_workers_end_as_good_as_one(both):
    alone, _, _ = script.usual()
    pair = script.make(True)
    pair.load_state_dict(weights(both[0], "usual"))
    test = script.images().test
    assert evaluate(pair.eval(), test) == pytest.approx(evaluate(alone, test), abs=0.08)


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_and_leaves_a_checkpoint(tmp_path):
    done = torchrun(script.__file__, "verb", str(tmp_path))
    assert done.returncode == 1
    ours = done.stderr[done.stderr.index("error: A worker of this run is gone") :]
    assert "where:   worker 0 of 2" in ours
    assert "goes on from there" in ours
    assert 'File "' + str(ROOT / "hwprune") not in done.stderr, "no traceback of ours"
    finished = script.KILLED_IN - 1

    reported = []
    net = script.make(True)
    history = train(
        net,
        script.images().train,
        script.USUAL,
        seed=3,
        checkpoint=tmp_path / "checkpoint.safetensors",
        progress=lambda epoch, total, /, **figures: reported.append(epoch),
    )
    assert [epoch for epoch in reported if epoch == int(epoch)] == list(
        range(finished + 1, script.EPOCHS + 1)
    )
    assert [epoch.epoch for epoch in history.epochs] == list(range(1, script.EPOCHS + 1))
    assert evaluate(net, script.images().test) > 0.8


@pytest.mark.slow
def test_too_many_workers_for_a_batch_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "world", lambda: 40)
    with pytest.raises(UsageError, match="so many workers"):
        train(script.make(False), script.images().train, script.USUAL)
