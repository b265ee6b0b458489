"""From a folder of colour pictures to an export through the command line, for every kind."""

import hashlib
import json

import numpy as np
import onnxruntime
import pytest
from matplotlib.image import imread
from PIL import Image

from latentserve_training.__main__ import main
from latentserve_training.models.registry import KINDS

SIDE = 16
SETTINGS = ["training.epochs=1", "data.test_fraction=0.2", f"data.image_size={SIDE}"]


@pytest.fixture
def pictures(tmp_path):
    """Two classes of 24×20 pictures: red or blue blobs at random positions."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :20]
    for name, colour in (("red", (255, 60, 30)), ("blue", (20, 90, 255))):
        folder = tmp_path / "blobs" / name
        folder.mkdir(parents=True)
        for number in range(100):
            row, column = rng.uniform(6, 18), rng.uniform(5, 15)
            blob = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 12)
            pixels = (blob[..., None] * colour).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "blobs"


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_colour_pictures_are_trained_and_exported(kind, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    preset = tmp_path / "own.toml"
    preset.write_text(f'name = "own"\nkind = "{kind}"\n', encoding="utf-8")
    overrides = [argument for each in SETTINGS for argument in ("--set", each)]
    command = ["train", "--config", str(preset), "--data", "blobs", *overrides]
    assert main(command) == 0
    assert main(["export", "runs/own"]) == 0

    folder = tmp_path / "exports" / "own" / "1"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["image"] == {"channels": 3, "height": SIDE, "width": SIDE}
    assert manifest["training"]["data"]["name"] == "blobs"
    assert manifest["training"]["data"]["train_samples"] == 152  # 200, less a fifth, less 5 %
    for operation in manifest["operations"].values():
        session = onnxruntime.InferenceSession(
            folder / operation["file"], providers=["CPUExecutionProvider"]
        )
        (graph_input,) = session.get_inputs()
        zeros = np.zeros((2, *graph_input.shape[1:]), np.float32)
        for output in session.run(None, {graph_input.name: zeros}):
            assert np.isfinite(output).all()
    grids = [path for path in (tmp_path / "runs" / "own").glob("*.png") if path.stem != "curves"]
    assert grids
    for path in grids:
        pixels = imread(path)[..., :3]
        assert (pixels.max(2) - pixels.min(2)).max() > 0, f"{path.name} is grey"

    # The hash covers the pictures: a changed picture gives a different data set.
    assert main([*command, "--resume"]) == 0
    changed = pictures / "red" / training_picture(pictures)
    Image.fromarray(np.asarray(Image.open(changed)) ^ 255).save(changed)
    assert main([*command, "--resume"]) == 1
    assert "the training images are not those of this run" in capsys.readouterr().err


def training_picture(folder):
    """Return the red picture that is read last; the first fifth of all is held out."""
    names = [path.name for path in (folder / "red").iterdir()]
    return max(names, key=lambda name: hashlib.sha256(f"red/{name}".encode()).digest())
