import json
import shutil

import pytest

from latentserve_training.errors import CheckpointError
from latentserve_training.provenance import machine
from latentserve_training.report.records import Records, record_of
from latentserve_training.train.run_folder import RunFolder


def test_a_record_has_metrics_command_and_machine(finished_run, make_config):
    run = finished_run("sparse")
    record = record_of(run)
    evaluation = json.loads(run.evaluation.read_text(encoding="utf-8"))
    assert record["metrics"] == evaluation["metrics"]
    assert record["config"] == make_config("sparse").as_dict()
    assert (record["seed"], record["epochs"]) == (3, 2)
    seconds = [json.loads(line)["seconds"] for line in run.metrics.read_text().splitlines()]
    assert record["training_seconds"] == pytest.approx(sum(seconds), abs=0.06)
    assert record["machine"] == machine()
    assert record["command"].startswith("latentserve-training train --config mnist-sparse --data")
    assert "--set name=tiny-sparse --set seed=3" in record["command"]
    assert str(run.path) not in json.dumps(record)


def test_a_run_without_a_machine_is_recorded_without_one(finished_run, tmp_path):
    run = RunFolder(shutil.copytree(finished_run("sparse").path, tmp_path / "run"))
    evaluation = json.loads(run.evaluation.read_text(encoding="utf-8"))
    for added in ("machine", "training_seconds", "command"):
        del evaluation[added]
    run.evaluation.write_text(json.dumps(evaluation), encoding="utf-8")
    whole = record_of(finished_run("sparse"))
    assert record_of(run) == whole | {"machine": {"cpu": "unknown"}}
    assert record_of(run, on_this_machine=True) == whole


def test_records_are_kept_by_name_and_seed(finished_run, tmp_path):
    records, record = Records(tmp_path / "results"), record_of(finished_run("sparse"))
    assert records.add(record).name == "tiny-sparse-seed3.json"
    assert records.add(record | {"seed": 0}).name == "tiny-sparse.json"
    records.add(record | {"seed": 0, "epochs": 9})
    assert [(each["seed"], each["epochs"]) for each in records.read()] == [(0, 9), (3, 2)]


def test_invalid_runs_and_records_are_refused(tmp_path, finished_run):
    with pytest.raises(CheckpointError, match="has no readable evaluation"):
        record_of(RunFolder(tmp_path))
    run = RunFolder(shutil.copytree(finished_run("sparse").path, tmp_path / "run"))
    run.metrics.unlink()
    with pytest.raises(CheckpointError, match="is not a run folder"):
        record_of(run)
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"broken\.json cannot be read"):
        Records(tmp_path).read()
