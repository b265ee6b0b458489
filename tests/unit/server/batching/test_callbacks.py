"""Events of a batcher become metrics, with a fixed set of reasons."""

from __future__ import annotations

import pytest

from latentserve_server.batching.callbacks import DROPPED, REFUSED
from latentserve_server.observability.metrics import Metrics

LABELS = {"model": "m", "version": "1"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: ())


def test_a_halved_batch_is_counted_by_operation(metrics: Metrics) -> None:
    metrics.callbacks("m", 1).halved("decode")
    labels = {**LABELS, "operation": "decode"}
    assert metrics.registry.get_sample_value("latentserve_halved_batches_total", labels) == 1


def test_the_help_of_a_metric_names_every_reason(metrics: Metrics) -> None:
    texts = {family.name: family.documentation for family in metrics.registry.collect()}
    assert texts["latentserve_rejected"].endswith(
        "reason: queue_full, total_full, deadline or unloading."
    )
    assert texts["latentserve_dropped"].endswith("reason: cancelled or expired.")
    for reason in (*REFUSED, *DROPPED):
        assert reason in texts["latentserve_rejected"] + texts["latentserve_dropped"]
