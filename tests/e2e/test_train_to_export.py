"""Training and export of presets through the command line."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnxruntime
import pytest

from latentserve_training.__main__ import main

REPOSITORY = Path(__file__).parent.parent.parent
QUICK = ["training.epochs=1", "data.max_train_images=300", "data.max_test_images=50"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "grids"),
    [
        ("mnist-ae", {"reconstructions", "samples"}),
        ("mnist-contractive", {"reconstructions"}),
        ("mnist-dae", {"denoised"}),
        ("mnist-linear", {"reconstructions"}),
        ("mnist-sparse", {"reconstructions"}),
        ("mnist-vae", {"reconstructions", "samples"}),
    ],
)
def test_a_user_trains_and_exports_without_a_network(preset, grids, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = [argument for each in QUICK for argument in ("--set", each)]
    assert main(["train", "--config", preset, *overrides]) == 0
    assert f"next: latentserve-training export runs/{preset}" in capsys.readouterr().out
    written = {path.stem for path in (tmp_path / "runs" / preset).glob("*.png")}
    assert written == grids | {"curves", "latents", "interpolation"}

    assert main(["export", f"runs/{preset}"]) == 0
    folder = tmp_path / "exports" / preset / "1"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    schema = json.loads((REPOSITORY / "exports" / "manifest.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(manifest)
    assert manifest["training"]["data"]["train_samples"] == 285
    for graph in manifest["operations"].values():
        assert_any_batch_runs(folder / graph["file"], graph)


def assert_any_batch_runs(path, graph):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (graph_input,) = session.get_inputs()
    assert graph_input.name == graph["inputs"][0]
    assert [output.name for output in session.get_outputs()] == graph["outputs"]
    for batch in (1, 5):
        zeros = np.zeros((batch, *graph_input.shape[1:]), np.float32)
        for output in session.run(None, {graph_input.name: zeros}):
            assert len(output) == batch
            assert np.isfinite(output).all()
