"""Scraper of the Prometheus metrics of a running server."""

from __future__ import annotations

import re
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from served import Server

TIMEOUT_S = 10.0


def metrics_url(server: Server) -> str:
    """Return the URL of /metrics from the log."""
    match = re.search(r'metrics are at (http://[^\s"]+)', server.log)
    assert match
    return match.group(1)


def scrape(server: Server) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the samples (labels, value) by metric name."""
    with urllib.request.urlopen(metrics_url(server), timeout=TIMEOUT_S) as reply:  # noqa: S310 - own server
        text = reply.read().decode()
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(server: Server, name: str, **labels: str) -> float:
    """Return the sum of the samples with these labels."""
    samples = scrape(server).get(name, [])
    return sum(number for found, number in samples if labels.items() <= found.items())


def settled(server: Server, expected: float, name: str, **labels: str) -> bool:
    """Wait until `value` is as expected, since a call is counted after its reply is sent."""
    end = time.monotonic() + TIMEOUT_S
    while (found := value(server, name, **labels)) != expected and time.monotonic() < end:
        time.sleep(0.02)
    return found == expected
