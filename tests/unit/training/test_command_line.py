import os
import subprocess
import sys

import pytest

from latentserve_training.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "absent"], "error: there is no preset 'absent'"),
        (["train", "--config", "mnist-ae", "--set", "epochs=1"], "did you mean 'training.epochs'?"),
        (["train", "--config", "mnist-ae", "--data", "absent"], "error: there is no folder absent"),
        (["train", "--config", "mnist-ae", "--data", "mnits"], "did you mean 'mnist'?"),
        (["export", "absent"], "error: there is no checkpoint"),
    ],
)
def test_a_users_error_is_one_line(arguments, message, capsys):
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


def test_an_interruption_says_how_to_go_on(monkeypatch, capsys):
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
