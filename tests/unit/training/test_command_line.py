import os
import shutil
import subprocess
import sys

import pytest

from latentserve_training.__main__ import main
from latentserve_training.evaluate import remeasure
from latentserve_training.metrics.classifier import load_classifier


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "absent"], "error: unknown preset 'absent'"),
        (["train", "--config", "mnist-ae", "--set", "epochs=1"], "did you mean 'training.epochs'?"),
        (
            ["train", "--config", "mnist-ae", "--data", "absent"],
            "error: the folder absent does not exist",
        ),
        (["train", "--config", "mnist-ae", "--data", "mnits"], "did you mean 'mnist'?"),
        (["export", "absent"], "error: the checkpoint absent/best.pt does not exist"),
        (["evaluate", "absent"], "error: absent is neither a run"),
        (["evaluate", ".", "--classifier", "absent.onnx"], "error: . is neither a run"),
        (["results", "absent"], "error: absent has no readable evaluation.json"),
        (
            ["train-classifier", "--config", "absent"],
            "unknown preset 'absent'; presets: mnist",
        ),
        (["train-classifier", "--set", "epochs=1"], "did you mean 'training.epochs'?"),
    ],
)
def test_a_user_error_is_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    few = ["--set", "data.max_train_images=40", "--set", "data.max_test_images=10"]
    out = str(tmp_path / "file" / "run")
    assert main(["train", "--config", "mnist-ae", *few, "--out", out]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert out in error


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_number_of_images_is_1_or_more(count, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--images", count])
    assert "is not an integer of 1 or more" in capsys.readouterr().err


def test_a_run_is_measured_again_and_printed(
    finished_run, image_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(remeasure, "load_data", lambda config, seed, folder: image_data)
    run = shutil.copytree(finished_run("sparse").path, tmp_path / "run")
    command = ["evaluate", str(run), "--metrics", "test_mse, test_knn_accuracy"]
    assert main([*command, "--images", "20", "--verbose"]) == 0
    output = capsys.readouterr().out
    assert "test_knn_accuracy: 20 samples; vote of the 5 training images" in output
    assert "test_mse: the stored value is from 60 samples" in output
    assert f"measured now: test_knn_accuracy; stored in {run}" in output
    assert main([*command, "--dry-run"]) == 0
    assert "nothing was stored" in capsys.readouterr().out


def test_results_of_runs_are_recorded_and_written(finished_run, tmp_path, capsys):
    folder = tmp_path / "results"
    assert main(["results", str(finished_run("sparse").path), "--results", str(folder)]) == 0
    assert (folder / "tiny-sparse-seed3.json").is_file()
    page = tmp_path / "RESULTS.md"
    assert "### tiny-sparse" in page.read_text(encoding="utf-8")
    assert f"written: {page}" in capsys.readouterr().out


def test_a_classifier_is_trained_on_the_digits_of_the_package(tmp_path, capsys):
    out = tmp_path / "new" / "c.onnx"
    few = ["data.max_train_images=60", "data.max_test_images=20", "training.epochs=1"]
    few += ["model.channels=[2,3]", "data.validation_fraction=0.2"]
    settings = [word for setting in few for word in ("--set", setting)]
    assert main(["train-classifier", "--out", str(out), *settings]) == 0
    assert "its test images" in capsys.readouterr().out
    card = load_classifier(out).card
    assert card["accuracy"]["samples"] == 20
    assert "--data" not in card["command"]


def test_a_download_into_a_file_is_refused(tmp_path, capsys):
    path = tmp_path / "own.npz"
    path.write_bytes(b"")
    assert main(["train", "--config", "mnist-ae", "--data", str(path), "--download"]) == 1
    assert f"{path} is a file, not a folder to download into" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    from latentserve_training import config

    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(config, "load_config", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train", "--config", "mnist-ae"])


def test_an_interruption_prints_how_to_resume(monkeypatch, capsys):
    from latentserve_training import config

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(config, "load_config", interrupt)
    assert main(["train", "--config", "mnist-ae"]) == 130
    assert "--resume" in capsys.readouterr().err


def test_help_loads_no_torch():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['latentserve-training', '--help']\n"
        "try:\n    runpy.run_module('latentserve_training', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code\n"
        "assert 'torch' not in sys.modules"
    )
    # The environment of this process: the package may be on its path alone, not installed.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr
    assert "train a model" in completed.stdout
