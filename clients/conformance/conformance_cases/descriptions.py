"""Cases of ModelService and of the health service."""

from __future__ import annotations

from conformance_cases.case_files import Json
from conformance_cases.exported_models import ExportedModel
from conformance_cases.suite import (
    DEFAULT_MODEL,
    HEALTH,
    MAX_BATCH_ROWS,
    MAX_REQUEST_ROWS,
    MAX_STREAM_ROWS,
    MODELS,
    Suite,
    error,
)

_OPERATIONS = ("encode", "decode", "reconstruct", "denoise", "sample")


def add(suite: Suite) -> None:
    """Add the groups models and health."""
    suite.case(
        "models/list",
        MODELS + "ListModels",
        {},
        {
            "ok": {
                "models": [_brief(model) for model in suite.models.values()],
                "default_model": DEFAULT_MODEL,
            }
        },
    )
    for name, model in suite.models.items():
        suite.case(
            f"models/{name}",
            MODELS + "GetModel",
            {"model": {"name": name}},
            {"ok": {"model": _whole(model)}},
        )
    suite.case("models/default", MODELS + "GetModel", {}, _get(suite, DEFAULT_MODEL))
    version = {"name": "mnist-ae", "version": suite.models["mnist-ae"].version}
    suite.case("models/version", MODELS + "GetModel", {"model": version}, _get(suite, "mnist-ae"))
    suite.case(
        "models/while-starting",
        MODELS + "GetModel",
        {},
        {"ok": {"model": {"name": DEFAULT_MODEL, "state": "LOADING"}}},
        server="starting",
    )
    for name, names in (("all", []), ("one", ["mnist-gan"])):
        suite.case(
            f"models/reload-{name}",
            MODELS + "ReloadModels",
            {"names": names},
            {
                "ok": {
                    "outcomes": [
                        {
                            "name": model.name,
                            "version": model.version,
                            "action": "UNCHANGED",
                            "reason": "",
                        }
                        for model in suite.models.values()
                        if not names or model.name in names
                    ]
                }
            },
        )
    _health(suite)


def _get(suite: Suite, name: str) -> Json:
    return {"ok": {"model": _brief(suite.models[name])}}


def _brief(model: ExportedModel) -> Json:
    """Return the fields that identify a model."""
    return {
        "name": model.name,
        "version": model.version,
        "state": "READY",
        "reason": "",
        "digest": model.digest,
        "kind": model.manifest["kind"],
    }


def _whole(model: ExportedModel) -> Json:
    """Return every field of a model except its provider, which depends on the machine."""
    manifest = model.manifest
    latent, likelihood = manifest["latent"], manifest["likelihood"]
    return {
        **_brief(model),
        "description": manifest["description"],
        "image": manifest["image"],
        "latent": {
            "dim": model.dim,
            "prior": latent["prior"],
            "has_log_variance": model.has_log_variance,
            "mixture_components": latent.get("mixture", {}).get("components", 0),
        },
        "operations": [name.upper() for name in _OPERATIONS if name in manifest["operations"]],
        "likelihood": likelihood
        and {"family": likelihood["family"], "sigma": likelihood.get("sigma") or 0.0},
        "limits": {
            "max_request_rows": MAX_REQUEST_ROWS,
            "max_stream_rows": MAX_STREAM_ROWS,
            "max_batch_rows": MAX_BATCH_ROWS,
        },
        "metrics": [_metric(name, metric) for name, metric in sorted(manifest["metrics"].items())],
    }


def _metric(name: str, metric: Json) -> Json:
    baseline = metric.get("baseline")
    return {
        "name": name,
        "value": metric["value"],
        "unit": metric["unit"],
        "baseline": baseline["value"] if baseline else None,
        "baseline_name": baseline["name"] if baseline else "",
        "samples": metric["samples"],
        "estimator": metric["estimator"],
    }


def _health(suite: Suite) -> None:
    services = ["", "latentserve.v1.GenerativeService", "latentserve.v1.ModelService"]
    for service in [*services, *suite.models]:
        suite.case(
            f"health/check-{service or 'server'}",
            HEALTH + "Check",
            {"service": service},
            {"ok": {"status": "SERVING"}},
        )
    suite.case(
        "health/check-unknown", HEALTH + "Check", {"service": "mnist-vea"}, error("NOT_FOUND")
    )
    for server in ("starting", "draining"):
        for service in ("", "mnist-vae"):
            suite.case(
                f"health/check-{server}-{service or 'server'}",
                HEALTH + "Check",
                {"service": service},
                {"ok": {"status": "NOT_SERVING"}},
                server=server,
            )
    for service, server, status in (
        ("", "main", "SERVING"),
        ("mnist-gan", "main", "SERVING"),
        ("mnist-vea", "main", "SERVICE_UNKNOWN"),
        ("", "starting", "NOT_SERVING"),
    ):
        suite.case(
            f"health/watch-{server}-{service or 'server'}",
            HEALTH + "Watch",
            {"service": service},
            {"ok": {"status": status}},
            server=server,
        )
