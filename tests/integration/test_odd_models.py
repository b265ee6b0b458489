"""Tests that an odd manifest or folder affects only its own version.

Each of these once ended the server at the start, or failed ListModels, reloads or the metrics of
all models.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from scraped import scrape
from served import EITHER_TRANSPORT, Server, ref, served

TIMEOUT_S = 20.0
METRICS = ("--metrics-listen", "127.0.0.1:0")
READY, REFUSED = models_pb.Model.STATE_READY, models_pb.Model.STATE_REFUSED

# Root reads every folder, so a test that needs an unreadable one takes this ability away.
UNPRIVILEGED = (
    "-c",
    "import os, sys; privileges = '-dac_override,-dac_read_search'; "
    "os.execvp('setpriv', ['setpriv', '--bounding-set=' + privileges, '--inh-caps=' + privileges, "
    "sys.executable, '-m', 'latentserve_server', *sys.argv[1:]])",
)


def value(path: str, new: Any) -> Callable[[str], str]:
    """Return a change of one value of a manifest."""

    def change(text: str) -> str:
        document = json.loads(text)
        *parents, last = path.split("/")
        owner = document
        for parent in parents:
            owner = owner[parent]
        owner[last] = new
        return json.dumps(document)

    return change


def text(old: str, new: str) -> Callable[[str], str]:
    """Return a change of the text of a manifest."""

    def change(content: str) -> str:
        assert old in content
        return content.replace(old, new)

    return change


# name -> (change, part of the reason; "" if the version is served)
ODD: dict[str, tuple[Callable[[str], str], str]] = {
    "float-dim": (value("latent/dim", 3.0), ""),
    "float-height": (value("image/height", 4.0), ""),
    "float-version": (value("version", 1.0), ""),
    "float-samples": (value("metrics/test_mse/samples", 10000.0), ""),
    "samples-70-bits": (value("metrics/test_mse/samples", 2**70), "metrics.test_mse.samples is"),
    "value-of-400-digits": (value("metrics/test_mse/value", 10**400), "metrics.test_mse.value"),
    "baseline-infinite": (
        text('"value": 0.5', '"value": 1e400'),
        "baseline.value is beyond the range of float64",
    ),
    "config-infinite": (text('"config": {}', '"config": {"a": [1e400]}'), "config.a[0]"),
    "surrogate": (text("A tiny gan", "A \\ud800 gan"), "$.description is not valid Unicode"),
    "surrogate-name": (text('"test_mse"', '"\\udfff"'), "a name in $.metrics is not valid"),
    "surrogate-file": (text('"golden.npz": {', '"\\ud800.npz": {'), "a name in $.files"),
    "surrogate-kind": (text('"kind": "gan"', '"kind": "\\udfff"'), "$.kind is not valid Unicode"),
    "name-and-newline": (value("files/golden.npz/sha256", "0" * 64 + "\n"), "does not match"),
    "deep": (text('"config": {}', '"config": ' + "[" * 10**5 + "]" * 10**5), "is not JSON"),
    "long": (value("metrics/test_mse/estimator", "x" * 40_000), "at most 32768 are allowed"),
}

# Names of folders that are no models, as bytes.
NO_MODELS = (b"mod\xe8le", b"evil\nname", b"\x1b[31mred", b"lost+found", b"a" * 255, b'a"b\\c')


def write(root: Path, name: str) -> None:
    folder = tiny_models.write_model(root, name, kind="gan")
    change, _ = ODD[name]
    manifest = folder / "manifest.json"
    manifest.write_text(change(manifest.read_text("utf-8")), encoding="utf-8")


def check_versions(server: Server) -> None:
    """Check that every RPC and the metrics work, and each odd version has its reason."""
    with server.models() as models, server.generative() as stub:
        listed = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S).models
        reload = models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        sample = stub.Sample(pb.SampleRequest(model=ref("good"), count=1), timeout=TIMEOUT_S)
    assert sample.served_by.name == "good"
    found = {model.name: model for model in listed}
    reasons = {outcome.name: outcome.reason for outcome in reload.outcomes}
    assert found.keys() == reasons.keys() == {"good", *ODD}
    for name, (_, reason) in ODD.items():
        assert found[name].state == (REFUSED if reason else READY), (name, found[name].reason)
        assert reason in found[name].reason, (name, found[name].reason)
        assert reason in reasons[name], (name, reasons[name])
    states = {labels["model"] for labels, _ in scrape(server)["latentserve_model_state"]}
    assert states == found.keys()


def test_odd_manifests_and_folders_break_only_their_own_version(tmp_path: Path) -> None:
    """At the start, and brought in by a reload."""
    root = tmp_path / "exports"
    tiny_models.write_model(root, "good", kind="gan")
    for name in ODD:
        write(root, name)
    for folder in NO_MODELS:
        (root / os.fsdecode(folder) / "1").mkdir(parents=True)
    with served(root, tmp_path / "log", *METRICS) as server:
        check_versions(server)
        assert "mod\\udce8le is passed over: this is not a model name" in server.log
        assert "lost+found is passed over" in server.log
        assert "\x1b" not in server.log
        # Said once, not at every reload.
        assert server.log.count("lost+found") == 1
    later = tmp_path / "later"
    tiny_models.write_model(later, "good", kind="gan")
    with served(later, tmp_path / "log", *METRICS) as server, server.models() as models:
        for name in ODD:
            write(later, name)
        for folder in NO_MODELS:
            (later / os.fsdecode(folder) / "1").mkdir(parents=True)
        models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
        check_versions(server)


@EITHER_TRANSPORT
def test_folders_that_are_almost_models_are_named_with_the_expected_layout(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    good = tiny_models.write_model(root, "good", kind="gan")
    shutil.copytree(good, root / "flat")
    shutil.copytree(good, root / "letters" / "v1")
    shutil.copytree(good, root / "zeros" / "00000001")
    (root / "empty").mkdir()
    with served(root, tmp_path / "log") as server:
        for name in ("flat/manifest.json", "letters/v1", "zeros/00000001", "empty"):
            line = server.wait_for_log(f"WARNING .*: {name} is passed over: .*").group(0)
            assert "expected NAME/VERSION/manifest.json, with a version such as 1" in line
        with server.models() as models:
            listed = models.ListModels(models_pb.ListModelsRequest(), timeout=TIMEOUT_S).models
    assert [model.name for model in listed] == ["good"]


@EITHER_TRANSPORT
@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="needs setpriv as root"
)
def test_a_folder_that_may_not_be_read_concerns_only_its_model(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    for name in ("good", "other"):
        tiny_models.write_model(root, name, kind="gan")
    (root / "lost+found").mkdir(mode=0o000)
    program = UNPRIVILEGED if os.geteuid() == 0 else ("-m", "latentserve_server")
    try:
        with (
            served(root, tmp_path / "log", program=program) as server,
            server.models() as models,
            server.generative() as stub,
        ):
            tiny_models.write_model(root, "new", kind="gan")
            (root / "other").chmod(0o000)
            (root / "secret").mkdir(mode=0o000)
            reload = models.ReloadModels(models_pb.ReloadModelsRequest(), timeout=TIMEOUT_S)
            outcomes = {outcome.name: outcome for outcome in reload.outcomes}
            assert outcomes.keys() == {"good", "other", "new"}
            assert outcomes["new"].action == models_pb.ReloadOutcome.ACTION_LOADED
            # A served version is kept, because its folder may still be there.
            assert "cannot be read: Permission denied" in outcomes["other"].reason
            for name in ("good", "other", "new"):
                stub.Sample(pb.SampleRequest(model=ref(name), count=1), timeout=TIMEOUT_S)
            with pytest.raises(grpc.RpcError):
                models.GetModel(models_pb.GetModelRequest(model=ref("secret")), timeout=TIMEOUT_S)
            assert "secret is passed over: it cannot be read: Permission denied" in server.log
    finally:
        for name in ("lost+found", "other", "secret"):
            (root / name).chmod(0o700)


@EITHER_TRANSPORT
def test_a_dangling_link_does_not_blind_the_poll(tmp_path: Path) -> None:
    root = tmp_path / "exports"
    good = tiny_models.write_model(root, "good", kind="gan")
    (good / "link").symlink_to(good / "nothing")
    with served(root, tmp_path / "log", "--poll-s", "0.1") as server:
        tiny_models.write_model(root, "new", kind="gan")
        server.wait_for_log("reload: new version 1 loaded")
