"""Loader: each model has its own limits, and all share one total quota."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.batching.request import Rows
from latentserve_server.errors import QueueFull
from latentserve_server.manifest.reader import Manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State

Floats = NDArray[np.float32]
IMAGE_BYTES = 4 * tiny_models.PIXELS


class WarmEngine:
    """Records the batch sizes of its warm-up."""

    provider = "FakeExecutionProvider"

    def __init__(self, manifest: Manifest) -> None:
        self.warmed: list[int] = []

    def run(self, operation: str, inputs: Sequence[Floats]) -> Sequence[Floats]:
        return inputs

    def warm_up(self, batch_rows: Iterable[int]) -> Any:
        self.warmed = list(batch_rows)
        return []

    def check_golden(self) -> float:
        return 0.0


def load(
    root: Path, name: str, limits: Limits, queue_quota: QueueQuota | None = None
) -> ModelVersion:
    tiny_models.write_model(root, name, kind="gan")
    loader = Loader(WarmEngine, limits=lambda name: limits, queue_quota=queue_quota)
    return loader.load(loader.read(name, 1, root / name / "1"))


def served(entry: ModelVersion) -> LoadedModel:
    assert entry.state is State.READY, entry.reason
    assert entry.model is not None
    return entry.model


def test_a_model_gets_the_limits_of_its_name(tmp_path: Path) -> None:
    engines: dict[str, WarmEngine] = {}

    def build(manifest: Manifest) -> WarmEngine:
        return engines.setdefault(manifest.name, WarmEngine(manifest))

    by_name = {"a": Limits(256, queue_rows=300), "b": Limits(16, queue_rows=20)}
    loader = Loader(build, limits=by_name.__getitem__)
    for name, limits in by_name.items():
        tiny_models.write_model(tmp_path, name, kind="gan")
        entry = loader.load(loader.read(name, 1, tmp_path / name / "1"))
        assert entry.max_batch_rows == limits.max_batch_rows
        assert engines[name].warmed == [1, limits.max_batch_rows]
        with pytest.raises(QueueFull, match=f"the limit is {limits.queue_rows} "):
            submit(served(entry), limits.queue_rows + 1)


def submit(model: LoadedModel, rows: int) -> None:
    array = np.zeros((rows, 4), dtype=np.float32)
    model.batcher.submit("decode", (Rows(array),), None, lambda completion: None)


def test_bytes_and_the_total_quota_reach_the_queue(tmp_path: Path) -> None:
    model = served(load(tmp_path, "a", Limits(8, queue_rows=100, queue_bytes=159)))
    with pytest.raises(QueueFull, match="--queue-bytes"):
        submit(model, 10)
    model = served(load(tmp_path, "b", Limits(8, queue_rows=100), QueueQuota(max_rows=9)))
    with pytest.raises(QueueFull, match="--total-queue-rows"):
        submit(model, 10)


def test_a_delay_reaches_the_batcher(tmp_path: Path) -> None:
    model = served(load(tmp_path, "a", Limits(8, queue_rows=100, max_delay_s=3600.0)))
    submit(model, 1)
    due_ns = model.batcher.next_due_ns()
    assert due_ns is not None
    assert due_ns > 1e12  # one hour from now
    model.batcher.close(timeout_s=20.0)


@pytest.mark.parametrize(("rows", "warns"), [(10, False), (11, True)])
def test_loading_warns_if_the_largest_request_can_never_be_admitted(
    tmp_path: Path, rows: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_models.write_model(tmp_path, "vae", kind="vae")
    limits = Limits(8, queue_rows=100, queue_bytes=10 * IMAGE_BYTES, request_rows=rows)
    loader = Loader(WarmEngine, limits=lambda name: limits)
    served(loader.load(loader.read("vae", 1, tmp_path / "vae" / "1")))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == warns
    if warns:
        assert f"vae version 1: a request of 11 rows of {IMAGE_BYTES} bytes" in warnings[0]
