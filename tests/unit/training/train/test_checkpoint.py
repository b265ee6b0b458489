import dataclasses

import pytest
import torch

from latentserve_training.errors import CheckpointError
from latentserve_training.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture
def checkpoint():
    return Checkpoint(
        epoch=3,
        config={"name": "x", "model": {"channels": [4, 8]}},
        image_shape=(1, 4, 4),
        data_sha256="0" * 64,
        model={"weight": torch.arange(6.0).reshape(2, 3)},
        optimizers={"model": {"state": {}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}},
        random_state=torch.Generator().get_state(),
        best_epoch=2,
        best_loss=0.5,
        history=[{"epoch": 1, "train_loss": 1.0}],
    )


def test_a_saved_checkpoint_is_loaded_unchanged(tmp_path, checkpoint):
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    loaded = load_checkpoint(tmp_path / "last.pt")
    for field in dataclasses.fields(Checkpoint):
        ours, theirs = getattr(checkpoint, field.name), getattr(loaded, field.name)
        if field.name in ("model", "random_state"):
            torch.testing.assert_close(theirs, ours, rtol=0, atol=0)
        else:
            assert theirs == ours, field.name


def test_nothing_but_the_checkpoint_is_left(tmp_path, checkpoint):
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    save_checkpoint(checkpoint, tmp_path / "last.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, checkpoint):
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    unpicklable = dataclasses.replace(checkpoint, config={"f": lambda: None})
    with pytest.raises(Exception, match="lambda"):
        save_checkpoint(unpicklable, path)
    assert path.read_bytes() == before


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"format": 1, "epoch": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "evil.pt")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_file_is_named(tmp_path, checkpoint, keep):
    path = tmp_path / "last.pt"
    save_checkpoint(checkpoint, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint .*last\.pt does not exist"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"format": 1, "x": 1}])
def test_another_programs_file_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of latentserve-training"):
        load_checkpoint(tmp_path / "other.pt")


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="another version"):
        load_checkpoint(tmp_path / "other.pt")
