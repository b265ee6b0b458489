import json

import pytest

from latentserve_training.train.run_folder import RunFolder, write_json


def test_json_is_written_atomically(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, {"σ": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"σ": 0.5}
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


def test_parents_are_made(tmp_path):
    RunFolder(tmp_path / "a" / "b").create(resume=False)
    assert (tmp_path / "a" / "b").is_dir()
