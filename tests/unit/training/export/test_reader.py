import json
import math
import shutil

import pytest
import torch

from latentserve_training.errors import EvaluationError, ExportError
from latentserve_training.evaluate.metric import Subject
from latentserve_training.evaluate.suite import applicable, measure
from latentserve_training.export.reader import load_export
from latentserve_training.pixels import to_float
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.trained_model import load_finished_model, load_model


@pytest.mark.parametrize("kind", ["vae", "denoising"])
def test_the_graphs_give_the_outputs_of_the_torch_model(
    kind, exported_run, finished_run, make_config, image_data
):
    export = load_export(exported_run(kind))
    torch_model = load_model(make_config(kind), load_checkpoint(finished_run(kind).best))
    images = to_float(image_data.test)
    with torch.inference_mode():
        mean, log_variance = export.model.posterior(images)
        expected_mean, expected_log_variance = torch_model.posterior(images)
        assert torch.allclose(mean, expected_mean, atol=1e-5)
        assert (log_variance is None) == (expected_log_variance is None)
        for ours, theirs in (
            (export.model.decode(mean), torch_model.decode(mean)),
            (export.model.reconstruct(images), torch_model.reconstruct(images)),
        ):
            assert torch.allclose(ours, theirs, atol=1e-5)
    assert export.model.likelihood() == torch_model.likelihood()
    assert export.model.prior == torch_model.prior


def test_metrics_of_an_export_equal_those_of_its_run(exported_run, finished_run, image_data):
    export = load_export(exported_run("denoising"))
    stored = json.loads(finished_run("denoising").evaluation.read_text())["metrics"]
    measured = measure(Subject(export.model, image_data), stored)
    for name, metric in measured.items():
        assert metric.value == pytest.approx(stored[name]["value"], rel=1e-5)


def test_metrics_that_need_the_weights_are_nan(exported_run, image_data):
    export = load_export(exported_run("contractive"))
    metric = measure(Subject(export.model, image_data), ["test_jacobian"])["test_jacobian"]
    assert math.isnan(metric.value)
    assert all(weights.isnan().all() for weights in export.model.parameters())


@pytest.mark.parametrize("kind", ["vae", "linear"])
def test_only_an_unclipped_decoder_serves_decode_unclipped(kind, exported_run):
    model = load_export(exported_run(kind)).model
    if not hasattr(model, "decode_unclipped"):
        return
    latents = torch.randn(4, model.latent_dim)
    with torch.inference_mode():
        unclipped = model.decode_unclipped(latents)
    assert unclipped.isnan().all() == (kind == "linear")


def test_an_export_with_a_mixture_draws_from_it(exported_run, finished_run, make_config, tmp_path):
    run = finished_run("autoencoder", components=3)
    exported = exported_run("autoencoder", components=3)
    config = make_config(sampler={"components": 3})
    torch_model = load_finished_model(config, load_checkpoint(run.best), run)
    model = load_export(exported).model
    assert model.prior == torch_model.prior == "gaussian_mixture"
    draws = [
        each.sample_latents(20, torch.Generator().manual_seed(1)) for each in (model, torch_model)
    ]
    assert torch.equal(*draws)
    assert {"test_coverage", "test_code_log_likelihood_nats"} <= {*applicable(model)}
    folder = shutil.copytree(exported, tmp_path / "1")
    (folder / "prior.npz").write_bytes(b"something else")
    with pytest.raises(EvaluationError, match=r"prior\.npz does not have the sha256"):
        load_export(folder)


def test_metrics_are_replaced_and_nothing_else(exported_run, tmp_path):
    folder = shutil.copytree(exported_run("vae"), tmp_path / "1")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    export = load_export(folder)
    metrics = export.manifest["metrics"]
    changed = metrics | {"test_mse": metrics["test_mse"] | {"value": 0.5}}
    export.store_metrics(changed)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json"}
    manifest = json.loads(after["manifest.json"])
    assert manifest == json.loads(before["manifest.json"]) | {"metrics": changed}
    export.store_metrics(metrics)
    assert (folder / "manifest.json").read_bytes() == before["manifest.json"], "the same format"


def test_a_metric_that_is_nan_is_not_stored(exported_run, tmp_path):
    folder = shutil.copytree(exported_run("vae"), tmp_path / "1")
    export = load_export(folder)
    metrics = export.manifest["metrics"]
    with pytest.raises(ExportError, match="test_mse"):
        export.store_metrics(metrics | {"test_mse": metrics["test_mse"] | {"value": math.nan}})
    assert load_export(folder).manifest["metrics"] == metrics


def test_an_altered_or_missing_file_is_refused(exported_run, tmp_path):
    folder = shutil.copytree(exported_run("vae"), tmp_path / "1")
    (folder / "decode.onnx").write_bytes(b"something else")
    with pytest.raises(EvaluationError, match=r"decode\.onnx does not have the sha256"):
        load_export(folder)
    (folder / "decode.onnx").unlink()
    with pytest.raises(EvaluationError, match=r"decode\.onnx cannot be read"):
        load_export(folder)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EvaluationError, match="is not a valid export"):
        load_export(folder)
