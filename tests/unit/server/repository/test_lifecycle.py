"""Model repository: loading, choosing and reloading versions; invalid ones affect no other."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from latentserve_server.batching.request import Completion, Rows
from latentserve_server.errors import (
    DeviceUnavailable,
    InvalidRequest,
    ManifestError,
    ModelFolderUnreadable,
    ModelNotFound,
    Unavailable,
)
from latentserve_server.manifest.reader import Manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.folders import fingerprint
from latentserve_server.repository.lifecycle import Outcome, Repository
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import State


class FakeEngine:
    """Returns zeros; its golden run fails with `golden_error`."""

    provider = "FakeExecutionProvider"

    def __init__(self, manifest: Manifest, golden_error: str = "") -> None:
        self.manifest = manifest
        self.golden_error = golden_error
        self.calls: list[Any] = []

    def run(self, operation: str, inputs: Sequence[Any]) -> list[Any]:
        shape = self.manifest.output_shape(operation)
        return [np.zeros((len(inputs[0]), *shape), dtype=np.float32)]

    def warm_up(self, batch_rows: Iterable[int]) -> list[tuple[str, int, float]]:
        sizes = tuple(batch_rows)
        self.calls.append(sizes)
        return [("decode", rows, rows / 1000) for rows in sizes]

    def check_golden(self) -> float:
        self.calls.append("golden")
        if self.golden_error:
            raise ManifestError(self.golden_error)
        return 0.0


class Engines:
    """Builds and records fake engines; `bad` maps (name, version) to a golden error."""

    def __init__(self) -> None:
        self.built: dict[tuple[str, int], FakeEngine] = {}
        self.bad: dict[tuple[str, int], str] = {}
        self.on_build: Callable[[Manifest], None] = lambda manifest: None

    def __call__(self, manifest: Manifest) -> FakeEngine:
        self.on_build(manifest)
        key = (manifest.name, manifest.version)
        self.built[key] = FakeEngine(manifest, self.bad.get(key, ""))
        return self.built[key]


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


Build = Callable[..., Repository]


@pytest.fixture
def build(root: Path, engines: Engines) -> Iterator[Build]:
    """Creates scanned repositories, and closes them after the test."""
    made: list[Repository] = []

    def make(*, load: bool = True, **options: Any) -> Repository:
        loader = Loader(engines, limits=lambda name: Limits(max_batch_rows=8, queue_rows=64))
        repository = Repository(root, loader, **{"max_versions": 10, **options})
        made.append(repository)
        repository.scan()
        if load:
            repository.load_all()
        return repository

    yield make
    for repository in made:
        repository.close(timeout_s=5.0)


def write(root: Path, *models: tuple[str, int]) -> None:
    for name, version in models:
        tiny_models.write_model(root, name, kind="gan", version=version)


def spoil(root: Path, name: str, version: int) -> None:
    (root / name / str(version) / "golden.npz").write_bytes(b"spoiled")


def served(repository: Repository, name: str, version: int) -> tuple[str, int]:
    manifest = repository.resolve(name, version).manifest
    return (manifest.name, manifest.version)


def summary(repository: Repository) -> list[tuple[str, int, State]]:
    return [(entry.name, entry.version, entry.state) for entry in repository.versions()]


# --- loading ----------------------------------------------------------------------------------


def test_every_version_is_checked_and_warmed_up_at_the_smallest_and_largest_batch(
    root: Path, build: Build, engines: Engines
) -> None:
    write(root, ("a", 1), ("b", 3))
    repository = build()
    assert summary(repository) == [("a", 1, State.READY), ("b", 3, State.READY)]
    for engine in engines.built.values():
        assert engine.calls == ["golden", (1, 8)]
    assert repository.resolve("a", 1).provider == "FakeExecutionProvider"


def test_a_bad_folder_is_refused_with_its_reason_while_the_others_are_served(
    root: Path, build: Build, engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, ("a", 1), ("b", 1), ("c", 1))
    spoil(root, "b", 1)
    repository = build()
    states = [state for _, _, state in summary(repository)]
    assert states == [State.READY, State.REFUSED, State.READY]
    assert "golden.npz" in repository.find("b", 1).reason
    assert ("b", 1) not in engines.built
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert any("b version 1 is refused: golden.npz" in record.getMessage() for record in errors)


def test_a_model_whose_golden_outputs_differ_is_refused_while_the_others_are_served(
    root: Path, build: Build, engines: Engines
) -> None:
    write(root, ("a", 1), ("b", 1))
    engines.bad["a", 1] = "decode gives other results than at export"
    repository = build()
    assert repository.find("a", 1).reason == "decode gives other results than at export"
    assert served(repository, "b", 0) == ("b", 1)


def test_a_device_that_fails_concerns_all_models(
    root: Path, build: Build, engines: Engines
) -> None:
    write(root, ("a", 1))

    def fail(manifest: Manifest) -> None:
        raise DeviceUnavailable("no GPU")

    engines.on_build = fail
    with pytest.raises(DeviceUnavailable, match="no GPU"):
        build()


def test_a_loading_version_is_unavailable_with_a_retry_delay(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    repository = build(load=False)
    for version in (0, 1):
        with pytest.raises(Unavailable) as refused:
            repository.resolve("a", version)
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 0
        assert "a version 1 is loading" in str(refused.value)
    assert summary(repository) == [("a", 1, State.LOADING)]


def test_a_version_answers_while_another_is_still_loading(
    root: Path, build: Build, engines: Engines
) -> None:
    write(root, ("a", 1), ("a", 2))
    repository = build(load=False)
    answers: list[tuple[str, int]] = []

    def resolve_meanwhile(manifest: Manifest) -> None:
        if engines.built:
            answers.append(served(repository, "a", 0))

    engines.on_build = resolve_meanwhile
    repository.load_all()
    assert answers == [("a", 2)]


def test_manifests_are_those_that_were_not_refused(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    spoil(root, "a", 1)
    assert [manifest.name for manifest in build(load=False).manifests()] == ["b"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_more_than_max_versions_are_served_and_the_log_names_the_first_left_out(
    root: Path, build: Build, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    write(root, ("a", 1), ("b", 1), ("c", 1), ("d", 1))
    repository = build(max_versions=limit)
    assert [name for name, _, _ in summary(repository)] == list("abcd"[:limit])
    assert f"at most {limit} versions" in caplog.text
    assert f"{'abcd'[limit]} version 1" in caplog.text


def test_the_limit_on_versions_leaves_out_old_ones_before_the_highest(
    root: Path, build: Build
) -> None:
    """After version 3 was added to a full server, it must not silently serve version 2."""
    write(root, ("a", 1), ("a", 2), ("a", 3))
    assert served(build(max_versions=2), "a", 0) == ("a", 3)


def test_other_folders_are_ignored(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    (root / "manifest.schema.json").write_text("{}")
    (root / ".git" / "1").mkdir(parents=True)
    (root / "empty").mkdir()
    for name in ("latest", "1.tmp", "-1", "1.5", " 2", "²", "٢"):
        (root / "a" / name).mkdir()
    (root / "a" / "3").write_text("a file")
    assert summary(build()) == [("a", 1, State.READY)]


def test_a_version_folder_without_a_manifest_is_refused_by_name(root: Path, build: Build) -> None:
    (root / "a" / "1").mkdir(parents=True)
    repository = build()
    assert summary(repository) == [("a", 1, State.REFUSED)]
    assert "manifest.json" in repository.find("a", 1).reason


def test_a_version_with_leading_zeros_does_not_replace_the_one_without(
    root: Path, build: Build
) -> None:
    write(root, ("a", 1))
    (root / "a" / "01").mkdir()
    assert served(build(), "a", 1) == ("a", 1)


def test_an_empty_folder_is_no_error(build: Build) -> None:
    assert build().versions() == ()


# --- choosing a version -----------------------------------------------------------------------


def test_version_zero_is_the_highest_as_a_number(root: Path, build: Build) -> None:
    write(root, ("a", 9), ("a", 10), ("a", 2))
    repository = build()
    assert served(repository, "a", 0) == ("a", 10)
    assert [version for _, version, _ in summary(repository)] == [10, 9, 2]


def test_an_explicit_version_is_served(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("a", 2))
    assert served(build(), "a", 1) == ("a", 1)


def test_if_the_highest_version_is_refused_the_next_one_is_served(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("a", 2), ("a", 3))
    spoil(root, "a", 3)
    assert served(build(), "a", 0) == ("a", 2)


def test_a_refused_version_by_its_number_is_not_found_with_the_reason(
    root: Path, build: Build
) -> None:
    write(root, ("a", 1), ("a", 2))
    spoil(root, "a", 2)
    with pytest.raises(ModelNotFound) as refused:
        build().resolve("a", 2)
    assert "a version 2 was refused: golden.npz" in str(refused.value)


def test_a_model_with_refused_versions_alone_is_not_found_with_the_reason(
    root: Path, build: Build
) -> None:
    write(root, ("a", 1), ("b", 1))
    spoil(root, "a", 1)
    with pytest.raises(ModelNotFound) as refused:
        build().resolve("a", 0)
    assert "every version of a was refused: golden.npz" in str(refused.value)
    assert refused.value.metadata["models"] == "b"


def test_an_unknown_version_is_not_found_with_those_there_are(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("a", 3))
    with pytest.raises(ModelNotFound) as refused:
        build().resolve("a", 2)
    assert "a has no version 2; it has 3, 1" in str(refused.value)


def test_a_negative_version_is_an_invalid_request(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    with pytest.raises(InvalidRequest) as refused:
        build().resolve("a", -1)
    (violation,) = refused.value.violations
    assert violation.field == "model.version"
    assert "-1 was sent" in violation.description


# --- choosing a model -------------------------------------------------------------------------


def test_an_unknown_name_is_not_found_with_the_names_there_are(root: Path, build: Build) -> None:
    write(root, ("b", 1), ("a", 1), ("c", 1))
    spoil(root, "c", 1)
    with pytest.raises(ModelNotFound) as refused:
        build().resolve("mnist", 0)
    assert "'mnist'" in str(refused.value)
    assert "Models: a, b" in str(refused.value)
    assert refused.value.metadata == {"models": "a, b"}


def test_a_name_of_megabytes_is_not_repeated_in_full(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    with pytest.raises(ModelNotFound) as refused:
        build().resolve("x" * 2**20, 0)
    assert len(str(refused.value)) < 300


def test_a_server_without_models_says_so(build: Build) -> None:
    with pytest.raises(ModelNotFound, match="Models: none"):
        build().resolve("a", 0)


def test_no_name_means_the_only_model(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("a", 2))
    repository = build()
    assert repository.default_model == "a"
    assert served(repository, "", 0) == ("a", 2)
    assert served(repository, "", 1) == ("a", 1)


def test_no_name_is_not_found_where_there_are_several(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    repository = build()
    assert repository.default_model == ""
    with pytest.raises(ModelNotFound) as refused:
        repository.resolve("", 0)
    assert "names no model" in str(refused.value)
    assert "Models: a, b" in str(refused.value)


def test_no_name_means_the_configured_default(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    repository = build(default_model="b")
    assert repository.default_model == "b"
    assert served(repository, "", 0) == ("b", 1)
    assert served(repository, "a", 0) == ("a", 1)


def test_after_closing_a_model_takes_no_more_rows(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    repository = build()
    model = repository.resolve("a", 0)
    rows = Rows(np.zeros((1, tiny_models.DIM), dtype=np.float32))
    repository.close(timeout_s=5.0)
    with pytest.raises(Unavailable):
        model.batcher.submit("decode", (rows,), None, lambda completion: None)


# --- reloading --------------------------------------------------------------------------------


def change(root: Path, name: str, version: int) -> None:
    """Publish other content under the same version."""
    folder = root / name / str(version)
    manifest = tiny_models.read_manifest(folder)
    manifest["description"] += " Changed."
    tiny_models.write_manifest(folder, manifest)


def actions(outcomes: list[Outcome]) -> list[tuple[str, int, str]]:
    return [(outcome.name, outcome.version, outcome.action.value) for outcome in outcomes]


def test_a_new_version_is_served_and_the_old_one_too(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    repository = build()
    write(root, ("a", 2))
    assert actions(repository.reload()) == [("a", 1, "unchanged"), ("a", 2, "loaded")]
    assert served(repository, "a", 0) == ("a", 2)
    assert served(repository, "a", 1) == ("a", 1)


def test_a_bad_version_is_refused_and_the_old_one_stays(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    repository = build()
    write(root, ("a", 2))
    spoil(root, "a", 2)
    change(root, "b", 1)
    spoil(root, "b", 1)
    before = repository.resolve("b", 1)
    outcomes = repository.reload()
    assert actions(outcomes) == [
        ("a", 1, "unchanged"),
        ("a", 2, "refused"),
        ("b", 1, "refused"),
    ]
    assert served(repository, "a", 0) == ("a", 1)
    assert repository.resolve("b", 1) is before
    assert "golden.npz" in outcomes[2].reason
    entry = repository.find("b", 1)
    assert (entry.state, entry.reason) == (State.READY, outcomes[2].reason)


def test_a_failing_golden_run_is_refused_too(root: Path, build: Build, engines: Engines) -> None:
    write(root, ("a", 1))
    repository = build()
    write(root, ("a", 2))
    engines.bad["a", 2] = "wrong numbers"
    assert actions(repository.reload())[1] == ("a", 2, "refused")
    assert served(repository, "a", 0) == ("a", 1)


def test_the_reason_is_cleared_when_the_invalid_replacement_is_removed(
    root: Path, build: Build
) -> None:
    write(root, ("a", 1))
    repository = build()
    manifest = root / "a" / "1" / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_text("{")
    repository.reload()
    assert repository.find("a", 1).reason
    manifest.write_bytes(good)
    assert actions(repository.reload()) == [("a", 1, "unchanged")]
    assert not repository.find("a", 1).reason


def test_a_changed_version_replaces_the_old_one_at_once(root: Path, build: Build) -> None:
    write(root, ("a", 1))
    repository = build()
    before = repository.resolve("a", 1)
    change(root, "a", 1)
    assert actions(repository.reload()) == [("a", 1, "loaded")]
    after = repository.resolve("a", 1)
    assert after is not before
    assert after.manifest.digest != before.manifest.digest


def test_a_removed_version_is_no_longer_served(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("a", 2), ("b", 1))
    repository = build()
    shutil.rmtree(root / "a" / "2")
    shutil.rmtree(root / "b")
    assert actions(repository.reload()) == [
        ("a", 1, "unchanged"),
        ("a", 2, "removed"),
        ("b", 1, "removed"),
    ]
    assert served(repository, "a", 0) == ("a", 1)
    with pytest.raises(ModelNotFound, match="no model 'b'"):
        repository.resolve("b", 0)


def test_a_replacement_is_loaded_before_the_old_version_is_removed(
    root: Path, build: Build, engines: Engines
) -> None:
    write(root, ("a", 1))
    repository = build()
    shutil.rmtree(root / "a" / "1")
    write(root, ("a", 2))
    before: list[tuple[str, int]] = []
    engines.on_build = lambda _: before.append(served(repository, "a", 0))
    assert actions(repository.reload()) == [("a", 1, "removed"), ("a", 2, "loaded")]
    assert before == [("a", 1)]
    assert served(repository, "a", 0) == ("a", 2)


def test_the_last_version_remains_if_its_replacement_is_refused(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    repository = build()
    shutil.rmtree(root / "a" / "1")
    write(root, ("a", 2))
    spoil(root, "a", 2)
    outcomes = repository.reload()
    assert actions(outcomes)[:2] == [("a", 1, "refused"), ("a", 2, "refused")]
    assert "its folder was removed" in outcomes[0].reason
    assert served(repository, "a", 0) == ("a", 1)
    assert repository.find("a", 1).reason == outcomes[0].reason
    shutil.rmtree(root / "a" / "2")  # now the whole model was removed
    assert actions(repository.reload())[:2] == [("a", 1, "removed"), ("a", 2, "removed")]


def test_a_damaged_file_of_a_served_version_is_reported_and_the_version_remains(
    root: Path, build: Build
) -> None:
    write(root, ("a", 1))
    repository = build()
    before = repository.resolve("a", 1)
    spoil(root, "a", 1)  # under the same manifest
    (outcome,) = repository.reload()
    assert (outcome.action.value, "golden.npz has" in outcome.reason) == ("refused", True)
    assert repository.resolve("a", 1) is before
    assert repository.find("a", 1).reason == outcome.reason


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_that_is_gone_or_empty_removes_nothing(
    root: Path, build: Build, caplog: pytest.LogCaptureFixture, empty: bool
) -> None:
    write(root, ("a", 1))
    failures: list[int] = []
    repository = build(on_failure=lambda: failures.append(1))
    shutil.rmtree(root)
    if empty:
        root.mkdir()
    with pytest.raises(ModelFolderUnreadable, match="it is empty" if empty else "No such file"):
        repository.reload()
    assert served(repository, "a", 0) == ("a", 1)
    assert len(failures) == 1
    assert str(root) in caplog.text


def test_a_refused_version_is_tried_again(root: Path, build: Build, engines: Engines) -> None:
    write(root, ("a", 1))
    engines.bad["a", 1] = "wrong numbers"
    repository = build()
    assert not repository.is_ready("a")
    del engines.bad["a", 1]
    assert actions(repository.reload()) == [("a", 1, "loaded")]
    assert repository.is_ready("a")


def test_an_engine_ends_with_the_last_call_that_holds_its_model(root: Path, build: Build) -> None:
    write(root, ("a", 1), ("b", 1))
    repository = build()
    held = repository.resolve("a", 1)
    batcher = held.batcher
    shutil.rmtree(root / "a")
    repository.reload()
    # A call that holds the model can still use it.
    done: queue.Queue[Completion] = queue.Queue()
    rows = Rows(np.zeros((1, tiny_models.DIM), np.float32))
    batcher.submit("decode", (rows,), None, done.put)
    assert done.get(timeout=10).error is None
    thread = next(t for t in threading.enumerate() if t.name == "engine-a/1")
    del held
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(Unavailable):
        batcher.submit("decode", (rows,), None, done.put)


def test_changes_are_reported_by_name(root: Path, build: Build) -> None:
    names: list[str] = []
    write(root, ("a", 1))
    repository = build(on_change=names.append)
    write(root, ("b", 1))
    names.clear()
    repository.reload()
    assert set(names) == {"b"}


def test_the_fingerprint_changes_with_every_file_of_a_version(root: Path) -> None:
    write(root, ("a", 1))
    seen = {fingerprint(root)}
    assert fingerprint(root) in seen
    (root / "a" / "1" / "decode.onnx").write_bytes(b"other")
    seen.add(fingerprint(root))
    write(root, ("a", 2))
    seen.add(fingerprint(root))
    shutil.rmtree(root / "a" / "1")
    seen.add(fingerprint(root))
    assert len(seen) == 4
    (root / "a" / ".3-writing").mkdir()
    assert fingerprint(root) in seen
    root.rename(root.with_name("aside"))
    seen.add(fingerprint(root))
    assert len(seen) == 5
    assert fingerprint(root) in seen
