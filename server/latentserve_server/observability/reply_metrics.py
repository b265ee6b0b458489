"""Metrics of unread replies and of overdue calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Counts = Mapping[tuple[str, ...], int]


def collect_replies(nbytes: int, refused: Counts, ended: Counts) -> Iterator[Metric]:
    """Yield the metric families; `nbytes` is the size of the unwritten replies."""
    yield GaugeMetricFamily(
        "latentserve_unwritten_reply_bytes",
        "Bytes of replies that are built and not yet written.",
        nbytes,
    )
    refusals = CounterMetricFamily(
        "latentserve_unread_refused",
        "Calls refused because earlier replies are not read, by limit: connection or total.",
        labels=("limit",),
    )
    for labels, count in refused.items():
        refusals.add_metric(labels, count)
    overdue = CounterMetricFamily(
        "latentserve_overdue_calls",
        "Calls ended because they took too long, by reason: max_call or reader_idle.",
        labels=("reason",),
    )
    for labels, count in ended.items():
        overdue.add_metric(labels, count)
    yield from (refusals, overdue)


def collect_decoding(nbytes: int, refused: Counts) -> Iterator[Metric]:
    """Yield the metric families of requests that wait to be decoded."""
    yield GaugeMetricFamily(
        "latentserve_decoding_bytes",
        "Bytes of large requests and of requests with image files that wait to be decoded.",
        nbytes,
    )
    refusals = CounterMetricFamily(
        "latentserve_decoding_refused",
        "Requests refused before they were decoded, by reason: full or deadline.",
        labels=("reason",),
    )
    for labels, count in refused.items():
        refusals.add_metric(labels, count)
    yield refusals
