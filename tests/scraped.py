"""What Prometheus would read from a running server."""

from __future__ import annotations

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from served import Server

TIMEOUT_S = 10.0


def scrape(server: Server) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return name -> samples."""
    match = re.search(r"metrics are at (http://\S+)", server.log)
    assert match
    with urllib.request.urlopen(match.group(1), timeout=TIMEOUT_S) as reply:  # noqa: S310 - our own
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
