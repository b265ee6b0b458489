import dataclasses
import json
import shutil

import pytest

from latentserve_training.config import parse_config
from latentserve_training.errors import DataError, EvaluationError
from latentserve_training.evaluate import metric, remeasure
from latentserve_training.evaluate.remeasure import Request, evaluate_folder
from latentserve_training.evaluate.suite import applicable
from latentserve_training.metrics.classifier import SHIPPED, load_classifier
from latentserve_training.models.registry import KINDS
from latentserve_training.train.run_folder import RunFolder


@pytest.fixture(autouse=True)
def blobs_are_read(monkeypatch, image_data):
    monkeypatch.setattr(remeasure, "load_data", lambda config, seed, folder: image_data)


@pytest.fixture
def run(finished_run, tmp_path):
    def copy(kind):
        return RunFolder(shutil.copytree(finished_run(kind).path, tmp_path / kind))

    return copy


def stored_in(folder):
    name = "evaluation.json" if (folder / "evaluation.json").is_file() else "manifest.json"
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_evaluate_adds_metrics_that_training_does_not_measure(run, classifier_file):
    folder = run("vae").path
    before = stored_in(folder)
    wanted = ["test_knn_accuracy", "test_classes_covered", "test_coverage"]
    request = Request(wanted, samples=100, classifier=classifier_file)
    evaluation = evaluate_folder(folder, None, request)
    assert set(evaluation.measured) == set(wanted)
    after = stored_in(folder)
    assert after["metrics"].keys() == before["metrics"].keys() | set(wanted)
    assert after["metrics"]["test_elbo_nats"] == before["metrics"]["test_elbo_nats"]
    assert "a classifier trained on blobs" in after["metrics"]["test_coverage"]["estimator"]
    assert {**after, "metrics": 0} == {**before, "metrics": 0}
    assert list(evaluation.metrics) == [
        name for name in applicable_to("vae") if name in after["metrics"]
    ]


def test_a_run_with_a_sampler_is_measured_by_its_samples(finished_run):
    run = finished_run("autoencoder", components=3)
    request = Request(["test_coverage", "test_code_log_likelihood_nats"], samples=50, store=False)
    assert set(evaluate_folder(run.path, None, request).measured) == set(request.metrics)


def applicable_to(kind):
    config = parse_config({"name": "x", "kind": kind})
    return applicable(KINDS[kind].build((1, 12, 12), config.model))


def test_an_export_is_measured_through_its_graphs(exported_run, tmp_path):
    folder = shutil.copytree(exported_run("vae"), tmp_path / "1")
    before = stored_in(folder)
    evaluation = evaluate_folder(folder, None, Request(samples=100))
    after = stored_in(folder)
    assert after["metrics"].keys() > before["metrics"].keys()
    assert {"test_knn_accuracy", "decode_latency_us"} <= after["metrics"].keys()
    assert {**after, "metrics": 0} == {**before, "metrics": 0}
    for name, stored in before["metrics"].items():
        if name in evaluation.measured and name != "decode_latency_us":
            assert after["metrics"][name]["value"] == pytest.approx(stored["value"], rel=1e-3)
    assert evaluation.omitted["test_classes_covered"].startswith("not measured: it needs labels")


def test_a_dry_run_stores_nothing(run):
    folder = run("sparse").path
    before = (folder / "evaluation.json").read_bytes()
    evaluation = evaluate_folder(folder, None, Request(["test_knn_accuracy"], store=False))
    assert "test_knn_accuracy" in evaluation.metrics
    assert (folder / "evaluation.json").read_bytes() == before


def test_a_metric_from_fewer_images_does_not_replace_one_from_more(run):
    folder = run("sparse").path
    before = stored_in(folder)["metrics"]
    evaluation = evaluate_folder(
        folder, None, Request(["test_mse", "test_knn_accuracy"], images=20)
    )
    after = stored_in(folder)["metrics"]
    assert after["test_mse"] == before["test_mse"]
    assert after["test_knn_accuracy"]["samples"] == 20
    assert evaluation.measured == ("test_knn_accuracy",)
    assert evaluation.omitted == {
        "test_mse": "the stored value is from 60 samples, the new one from 20; kept as stored"
    }


def test_a_contractive_run_has_a_reference_and_its_export_keeps_stored_metrics(
    run, exported_run, tmp_path
):
    wanted = ["test_jacobian", "test_mse_beside_plain"]
    folder = run("contractive").path
    before = stored_in(folder)["metrics"]
    assert set(evaluate_folder(folder, None, Request(wanted)).measured) == set(wanted)
    assert stored_in(folder)["metrics"] == before

    export = shutil.copytree(exported_run("contractive"), tmp_path / "1")
    evaluation = evaluate_folder(export, None, Request(wanted))
    assert evaluation.measured == ()
    assert "needs more than the exported graphs" in evaluation.omitted["test_jacobian"]
    assert "has a baseline" in evaluation.omitted["test_mse_beside_plain"]
    assert stored_in(export)["metrics"] == before


def test_more_importance_samples_replace_what_is_stored(run, exported_run, tmp_path):
    name = "test_log_likelihood_nats"
    request = Request([name], importance_samples=200, importance_images=20)
    for folder in (run("vae").path, shutil.copytree(exported_run("vae"), tmp_path / "1")):
        before = stored_in(folder)["metrics"]
        assert evaluate_folder(folder, None, request).measured == (name,)
        after = stored_in(folder)["metrics"]
        assert (before[name]["samples"], after[name]["samples"]) == (60, 20)
        assert "with 200 posterior samples for each image" in after[name]["estimator"]
        assert before[name]["baseline"] == after[name]["baseline"]
        assert list(after) == list(before)
        assert {**after, name: 0} == {**before, name: 0}


def test_a_stored_log_likelihood_is_measured_again_only_on_request(run):
    folder = run("vae").path
    before = stored_in(folder)["metrics"]["test_log_likelihood_nats"]
    evaluation = evaluate_folder(folder, None, Request(samples=60))
    assert stored_in(folder)["metrics"]["test_log_likelihood_nats"] == before
    assert "name it with --metrics" in evaluation.omitted["test_log_likelihood_nats"]
    named = Request(["test_log_likelihood_nats"], samples=60)
    assert evaluate_folder(folder, None, named).measured == ("test_log_likelihood_nats",)


def test_importance_samples_are_for_models_with_a_likelihood(finished_run):
    request = Request(["test_mse"], importance_samples=5)
    with pytest.raises(
        EvaluationError, match="test_log_likelihood_nats is not a metric of a model"
    ):
        evaluate_folder(finished_run("sparse").path, None, request)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["test_msee"], "unknown metric 'test_msee'; did you mean 'test_mse'"),
        (["coverage"], "did you mean 'test_coverage'"),
        (["test_jacobian"], "test_jacobian is not a metric of a model of kind sparse, which has: "),
        (["test_coverage"], "test_coverage is not a metric of a model of kind sparse"),
    ],
)
def test_a_metric_that_it_cannot_have_is_refused(metrics, message, finished_run):
    with pytest.raises(EvaluationError, match=message):
        evaluate_folder(finished_run("sparse").path, None, Request(metrics))


def test_images_that_the_model_was_not_trained_on_are_refused(
    finished_run, monkeypatch, image_data
):
    other = dataclasses.replace(image_data, sha256="1" * 64)
    monkeypatch.setattr(remeasure, "load_data", lambda config, seed, folder: other)
    with pytest.raises(DataError, match=r"are not those that .* was trained on.*--data"):
        evaluate_folder(finished_run("sparse").path, None, Request())


def test_a_classifier_of_other_images_is_refused(finished_run):
    assert load_classifier(SHIPPED).image_shape == (1, 28, 28)
    with pytest.raises(EvaluationError, match=r"takes images of \(1, 28, 28\), not \(1, 12, 12\)"):
        evaluate_folder(finished_run("vae").path, None, Request(classifier=SHIPPED))


def test_a_folder_that_is_neither_is_refused(tmp_path, exported_run):
    exported = exported_run("vae")
    with pytest.raises(EvaluationError, match=r"is neither a run .* nor an export"):
        evaluate_folder(tmp_path, None, Request())
    with pytest.raises(EvaluationError, match=f"did you mean {exported}"):
        evaluate_folder(exported.parent, None, Request())


def test_every_default_is_that_of_the_measurement():
    assert Request().samples == metric.SAMPLES == 10_000
