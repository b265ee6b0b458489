import json

import numpy as np
import pytest
import torch

from latentserve_training.errors import CheckpointError
from latentserve_training.evaluate.metric import Metric
from latentserve_training.pixels import to_float
from latentserve_training.report.finish_run import finish_run, metrics_table
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.loop import train
from latentserve_training.train.run_folder import RunFolder
from latentserve_training.train.trained_model import (
    load_finished_model,
    load_model,
    read_evaluation,
    read_examples,
)


def test_a_finished_run_has_all_files_for_export_and_users(finished_run, image_data):
    folder = finished_run("vae")
    files = {path.name for path in folder.path.iterdir()}
    assert files == {
        "config.json",
        "metrics.jsonl",
        "last.pt",
        "best.pt",
        "evaluation.json",
        "examples.npz",
        "curves.png",
        "reconstructions.png",
        "samples.png",
        "latents.png",
        "interpolation.png",
    }
    assert torch.equal(read_examples(folder), image_data.test[:8])
    assert read_evaluation(folder)["data"] == {
        "name": "blobs",
        "sha256": "0" * 64,
        "train_samples": 160,
    }


def test_a_sampler_is_fitted_sampled_and_evaluated(finished_run, make_config, image_data):
    folder = finished_run("autoencoder", components=3)
    config, checkpoint = make_config(sampler={"components": 3}), load_checkpoint(folder.best)
    assert (folder.path / "samples.png").is_file()
    model = load_finished_model(config, checkpoint, folder)
    assert (model.prior, model.mixture.components) == ("gaussian_mixture", 3)
    measured = read_evaluation(folder)["metrics"]["test_code_log_likelihood_nats"]
    codes = model.encode(to_float(image_data.test))
    assert measured["value"] == pytest.approx(model.mixture.log_density(codes).mean().item())
    assert measured["baseline"]["name"] == "one Gaussian"
    assert measured["baseline"]["value"] < measured["value"]

    before = folder.mixture.read_bytes()
    finish_run(config, image_data, checkpoint, checkpoint.history, folder)
    assert folder.mixture.read_bytes() == before
    torch.testing.assert_close(
        model.sample_latents(4, torch.Generator().manual_seed(1)),
        model.mixture.sample(4, torch.Generator().manual_seed(1)),
        rtol=0,
        atol=0,
    )


def test_a_sampler_that_is_missing_says_how_to_finish_the_run(tmp_path, finished_run, make_config):
    checkpoint = load_checkpoint(finished_run("autoencoder", components=3).best)
    config = make_config(sampler={"components": 3})
    with pytest.raises(CheckpointError, match=r"prior\.npz .*train --resume"):
        load_finished_model(config, checkpoint, RunFolder(tmp_path))


def test_a_finished_run_can_be_measured_again(tmp_path, make_config, image_data):
    config, folder = make_config(), RunFolder(tmp_path)
    best = train(config, image_data, folder)
    first = finish_run(config, image_data, best, best.history, folder)
    best = train(config, image_data, folder, resume=True)
    assert finish_run(config, image_data, best, best.history, folder) == first


def test_a_contractive_run_trains_its_reference_once(finished_run, make_config, image_data):
    folder = finished_run("contractive")
    twin = RunFolder(folder.path / "reference")
    plain, own = load_checkpoint(twin.best), load_checkpoint(folder.best)
    assert own.config["model"].pop("penalty_weight") > 0
    assert plain.config["model"].pop("penalty_weight") == 0
    assert plain.config == own.config

    measured = read_evaluation(folder)["metrics"]
    assert measured["test_jacobian"]["baseline"]["name"] == "plain autoencoder"
    before = twin.last.read_bytes()
    again = finish_run(
        make_config("contractive"), image_data, load_checkpoint(folder.best), own.history, folder
    )
    assert twin.last.read_bytes() == before
    assert {name: metric.as_manifest() for name, metric in again.items()} == measured


def test_a_vae_gan_has_a_vae_as_baseline(finished_run, image_data):
    folder = finished_run("vae-gan")
    twin = load_checkpoint(RunFolder(folder.path / "reference").best)
    own = load_checkpoint(folder.best)
    assert twin.config["kind"] == "vae"
    assert twin.config["training"] == own.config["training"]
    measured = read_evaluation(folder)["metrics"]
    for name in ("test_frechet_beside_vae", "test_mse_beside_vae"):
        assert measured[name]["baseline"]["name"] == "VAE of the same size"
    assert measured["test_frechet_beside_vae"]["value"] == pytest.approx(
        measured["test_frechet_distance"]["value"]
    )
    assert measured["test_mse_beside_vae"]["value"] == measured["test_mse"]["value"]


def test_the_model_that_is_loaded_is_the_best_one(finished_run, make_config):
    checkpoint = load_checkpoint(finished_run("autoencoder").best)
    model = load_model(make_config(), checkpoint)
    assert not model.training
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, checkpoint.model[name])


def test_weights_of_another_model_are_refused(finished_run, make_config):
    checkpoint = load_checkpoint(finished_run("autoencoder").best)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_model(make_config("vae"), checkpoint)


@pytest.mark.parametrize("read", [read_evaluation, read_examples])
def test_an_unfinished_run_is_named_with_the_correction(tmp_path, read):
    with pytest.raises(CheckpointError, match="finish the run with train --resume"):
        read(RunFolder(tmp_path))


def test_damaged_files_raise_a_data_error(tmp_path):
    folder = RunFolder(tmp_path)
    folder.evaluation.write_text("{", encoding="utf-8")
    np.savez(folder.examples, wrong=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"evaluation\.json"):
        read_evaluation(folder)
    with pytest.raises(CheckpointError, match=r"examples\.npz"):
        read_examples(folder)


def test_the_table_says_when_a_baseline_is_not_beaten():
    def metric(value):
        return Metric(value, "dB", True, "one", 1.0, 10, "by hand")

    table = metrics_table({"good": metric(2.0), "bad": metric(0.5)}).splitlines()
    assert table[1].split() == ["good", "2", "1", "(one)", "dB"]
    assert "NOT beaten" in table[2]
    alone = metrics_table({"alone": Metric(2.0, "units", False, None, None, 10, "by hand")})
    assert alone.splitlines()[1].split() == ["alone", "2", "-", "units"]
    assert json.dumps(metric(2.0).as_manifest())
