import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import two_processes
from latentserve_training import distributed
from latentserve_training.errors import CheckpointError, ConfigError
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.loop import train
from latentserve_training.train.run_folder import RunFolder

PROGRAM = Path(two_processes.__file__)


def environment(**values):
    # The package may be on this process's path alone, not installed.
    path = os.pathsep.join(sys.path)
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | values


def start_two(folder, task):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder, task],
            env=environment(RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The run folder of two processes that train one model."""
    folder = tmp_path_factory.mktemp("two")
    processes = start_two(folder, "succeed")
    for process in processes:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0, output
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """The weights in the memory of each process after each run."""
    return [torch.load(folder / f"results-{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["autoencoder", "vae", "resumed", "skipped"])
def test_both_processes_end_with_the_same_weights_and_the_first_saves_them(run, folder, results):
    saved = load_checkpoint(folder / run / "last.pt").model
    for name, weights in saved.items():
        assert torch.isfinite(weights).all()
        for ours in results:
            assert torch.equal(ours[run][name], weights), name


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(folder, tmp_path):
    config, data = two_processes.make_config("autoencoder"), two_processes.make_data()
    train(config, data, RunFolder(tmp_path))
    one = load_checkpoint(tmp_path / "last.pt")
    two = load_checkpoint(folder / "autoencoder" / "last.pt")
    for name, weights in one.model.items():
        torch.testing.assert_close(two.model[name], weights, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(two.history, one.history, strict=True):
        for name in ("train_loss", "train_squared_error", "validation_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


@pytest.mark.slow
def test_each_process_has_different_noise(folder, tmp_path):
    config, data = two_processes.make_config("vae"), two_processes.make_data()
    train(config, data, RunFolder(tmp_path))
    one = load_checkpoint(tmp_path / "last.pt").model
    two = load_checkpoint(folder / "vae" / "last.pt").model
    assert not all(torch.allclose(two[name], one[name], rtol=1e-4) for name in one)


@pytest.mark.slow
def test_a_resumed_run_of_two_equals_an_uninterrupted_one(folder):
    whole = load_checkpoint(folder / "vae" / "last.pt").model
    resumed = load_checkpoint(folder / "resumed" / "last.pt").model
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
def test_a_non_finite_loss_in_one_process_is_skipped_by_both(folder, results):
    rows = load_checkpoint(folder / "skipped" / "last.pt").history
    assert [row["skipped_steps"] for row in rows] == [1, 0]
    assert "the gradient is nan, in step 3" in results[0]["refused"]
    assert "the loss is nan (squared_error inf), in step 3" in results[1]["refused"]


@pytest.mark.slow
def test_processes_agree_on_what_is_finite_and_on_means(results):
    assert results[0]["disagreed"] == "the slope is not finite in another process"
    assert results[1]["disagreed"] == "the slope is inf"
    assert results[0]["mean"] == results[1]["mean"] == [pytest.approx(2.0)]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_with_an_error(tmp_path):
    first, second = start_two(tmp_path, "fail")
    output, _ = first.communicate(timeout=60)
    assert second.wait(timeout=60) == 3
    second.stdout.close()
    assert first.returncode == 1, output
    assert "error: process 0 of 2 lost its connection to the others" in output


@pytest.mark.slow
def test_a_run_of_two_is_not_resumed_by_one(folder):
    config, data = two_processes.make_config("autoencoder"), two_processes.make_data()
    with pytest.raises(CheckpointError, match=r"2 processes trained this run.*--nproc-per-node 2"):
        train(config, data, RunFolder(folder / "autoencoder"), resume=True)


@pytest.mark.slow
def test_torchrun_trains_and_measures_once(tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    small = ["data.max_train_images=64", "data.max_test_images=20", "training.epochs=1"]
    small += ["sampler.components=0"]
    command = ["train", "--config", "mnist-ae", "--out", str(tmp_path / "run")]
    completed = subprocess.run(
        [*torchrun, "-m", "latentserve_training", *command, *(f"--set={each}" for each in small)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout.count("epoch 1/1: loss") == 1
    assert completed.stdout.count("next: latentserve-training export") == 1
    assert load_checkpoint(tmp_path / "run" / "last.pt").processes == 2
    assert (tmp_path / "run" / "evaluation.json").is_file()


def test_a_single_process_is_alone():
    assert (distributed.size(), distributed.rank(), distributed.is_first()) == (1, 0, True)
    rows = torch.arange(5)
    assert torch.equal(distributed.local_rows(rows), rows)
    assert distributed.local_share() == 1.0
    assert distributed.sum_over_processes([1.5]) == [1.5]
    assert distributed.broadcast_from_first({"loss": 1.0}) == {"loss": 1.0}
    generator = torch.Generator()
    assert distributed.noise_generator(0, 1, generator) is generator


@pytest.fixture
def ranks(monkeypatch):
    """Pretend to be each of several processes in turn."""

    def pretend(count):
        monkeypatch.setattr(distributed, "size", lambda: count)
        for rank in range(count):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            yield rank

    yield pretend
    distributed._share.set(1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_slices_cover_a_batch_once_and_their_shares_sum_to_one(ranks, count):
    seen, shares = [], []
    for _ in ranks(8):
        own = distributed.local_rows(torch.arange(count))
        assert len(own) >= 1
        shares.append(distributed.local_share())
        seen += own.tolist() if shares[-1] else []
    assert seen == list(range(count))
    assert sum(shares) == pytest.approx(1.0)


def test_noise_differs_by_process_and_epoch_and_repeats(ranks):
    def draw(epoch):
        return torch.rand(1, generator=distributed.noise_generator(3, epoch, None)).item()

    first = [draw(epoch) for _ in ranks(2) for epoch in (1, 2)]
    assert len(set(first)) == 4
    assert [draw(epoch) for _ in ranks(2) for epoch in (1, 2)] == first


def test_a_gpu_for_each_process(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.choose_device("cuda") == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU: torch sees 2"):
        distributed.choose_device("cuda")
