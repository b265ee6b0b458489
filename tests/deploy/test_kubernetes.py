"""Kubernetes manifests: validation against the published schemas, and consistency."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy_files import DEPLOY

yaml = pytest.importorskip("yaml")
BASE = DEPLOY / "kubernetes" / "base"
GPU = DEPLOY / "kubernetes" / "overlays" / "gpu"
# The oldest maintained version at the time of writing, and the newest.
VERSIONS = ("1.34", "1.37")


def _documents(folder: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(folder.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text("utf-8")):
                yield path.name, document


def _one(folder: Path, kind: str) -> Any:
    return next(d for _, d in _documents(folder) if d["kind"] == kind)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_conforms_to_the_schema(version: str) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate",
        reason="needs the schemas: pip install kubernetes-validate",
    )
    found = list(_documents(BASE))
    assert len(found) == 6
    for name, document in found:
        try:
            validate.validate(document, version, strict=True)
        except validate.ValidationError as error:
            pytest.fail(f"{name}: {error.message}")
    # The patch of a Deployment is not a complete object, but that of the autoscaler is.
    validate.validate(_one(GPU, "HorizontalPodAutoscaler"), version, strict=True)


@pytest.mark.skipif(
    not shutil.which("kustomize"),
    reason="needs kustomize",
)
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_the_output_of_kustomize_conforms_to_the_schema(folder: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    done = subprocess.run(
        ["kustomize", "build", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    assert len(documents) == 7
    for document in documents:
        validate.validate(document, VERSIONS[-1], strict=True)
    (deployment,) = (d for d in documents if d["kind"] == "Deployment")
    (settings,) = (d for d in documents if d["kind"] == "ConfigMap")
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    assert settings["data"]["LATENTSERVE_DEVICE"] == ("cuda" if folder == GPU else "cpu")
    assert settings["data"]["LATENTSERVE_DRAIN_DELAY_S"] == "10"
    assert ("nvidia.com/gpu" in server["resources"]["limits"]) is (folder == GPU)
    assert server["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]


@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_kustomization_names_all_files(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    local = {r for r in kustomization["resources"] if not r.startswith("..")}
    named = local | {patch["path"] for patch in kustomization.get("patches", [])}
    present = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert named == present


def test_patches_match_their_targets() -> None:
    for name, patch in _documents(GPU):
        target = _one(BASE, patch["kind"])
        assert patch["metadata"]["name"] == target["metadata"]["name"], name
    containers = {c["name"] for c in _containers(BASE)}
    assert {c["name"] for c in _containers(GPU)} <= containers


def _containers(folder: Path) -> list[Any]:
    found: list[Any] = _one(folder, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def test_all_selectors_match_the_pods() -> None:
    pods = _one(BASE, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        _one(BASE, "Deployment")["spec"]["selector"]["matchLabels"],
        _one(BASE, "Service")["spec"]["selector"],
        _one(BASE, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        _one(BASE, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= pods.items() for selector in selectors)


def test_pods_are_hardened_and_have_limits() -> None:
    pod = _one(BASE, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert not pod["automountServiceAccountToken"]
    for server in pod["containers"]:
        assert server["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert server["resources"]["limits"]["memory"]
    policy = _one(BASE, "NetworkPolicy")["spec"]
    assert "Egress" in policy["policyTypes"]
    assert policy["egress"] == []


def test_servers_of_compose_are_on_an_internal_network() -> None:
    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text("utf-8"))
    assert compose["networks"]["back"] == {"internal": True}
    for name in ("server", "server-gpu", "load", "reload", "train"):
        assert list(compose["services"][name]["networks"]) == ["back"]


def test_a_drain_fits_into_the_termination_grace_period() -> None:
    pod = _one(BASE, "Deployment")["spec"]["template"]["spec"]
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))
    settings = dict(x.split("=", 1) for x in kustomization["configMapGenerator"][0]["literals"])
    drain_s, grace_s = (
        float(settings[f"LATENTSERVE_{name}"]) for name in ("DRAIN_DELAY_S", "GRACE_S")
    )
    assert drain_s + grace_s + 30 <= pod["terminationGracePeriodSeconds"]
    probe = pod["containers"][0]["livenessProbe"]
    # Health is NOT_SERVING during a drain, which must not fail the liveness probe.
    assert probe["periodSeconds"] * probe["failureThreshold"] > drain_s + grace_s


def test_config_map_literals_are_settings_of_the_server() -> None:
    from latentserve_server.config import read_settings

    for folder in (BASE, GPU):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
        settings = dict(x.split("=", 1) for x in kustomization["configMapGenerator"][0]["literals"])
        known = vars(read_settings(["--exports", str(DEPLOY)], {}))
        assert {x.removeprefix("LATENTSERVE_").lower() for x in settings} <= set(known)
        read_settings(["--exports", str(DEPLOY)], settings)
