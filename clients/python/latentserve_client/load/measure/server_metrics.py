"""Prometheus metrics of the server, before and after a run."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from latentserve_client._channel import is_local_url

_TIMEOUT_S = 5.0
_MAX_BYTES = 32 * 2**20
_LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+([^\s]+)(?:\s+-?\d+)?")
_CREATED = "_created"  # creation time of a series, not a measurement


class MetricsUnavailable(Exception):
    """The metrics of the server cannot be read."""


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """One scrape: value by series, which is the name with its labels as written."""

    values: Mapping[str, float]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum over all series with this name and these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for series, value in self.values.items()
            if series.partition("{")[0] == name and all(label in series for label in wanted)
        )

    def has(self, name: str) -> bool:
        """Return whether a series with this name exists."""
        return any(series.partition("{")[0] == name for series in self.values)


def scrape(url: str) -> MetricsSnapshot:
    """Read the metrics at an http:// or https:// address. Raises MetricsUnavailable."""
    if not url.startswith(("http://", "https://")):
        raise MetricsUnavailable(f"{url}: expected an address like http://127.0.0.1:9464/metrics")
    try:
        # The scheme is checked above, so that this cannot open a file.
        with _opener(url).open(url, timeout=_TIMEOUT_S) as reply:
            text = reply.read(_MAX_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise MetricsUnavailable(f"{url}: {error.reason}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise MetricsUnavailable(f"{url}: {getattr(error, 'reason', error)}") from None
    samples = parse(text)
    if not samples.values:
        raise MetricsUnavailable(f"{url}: the page contains no Prometheus metrics")
    return samples


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Return an opener that uses the proxy of the environment, except for this machine."""
    handlers = [urllib.request.ProxyHandler({})] if is_local_url(url) else []
    return urllib.request.build_opener(*handlers)


def parse(text: str) -> MetricsSnapshot:
    """Parse the Prometheus text format into values by series."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.fullmatch(line.strip())
        if match is None or match[1].endswith(_CREATED):
            continue
        try:
            values[f"{match[1]}{{{match[2]}}}" if match[2] else match[1]] = float(match[3])
        except ValueError:
            continue
    return MetricsSnapshot(values)


def changes(before: MetricsSnapshot, after: MetricsSnapshot) -> dict[str, float]:
    """Return the change of each series, without unchanged series."""
    return {
        series: value - before.values.get(series, 0.0)
        for series, value in sorted(after.values.items())
        if value != before.values.get(series, 0.0)
    }


def server_measurements(
    before: MetricsSnapshot, after: MetricsSnapshot, calls: int
) -> dict[str, float]:
    """Return batch rows, times, CPU, memory and refusals between two scrapes.

    `calls` is the number of successful calls that the load tester counted. The CPU per call uses
    the call counter of the server instead, if present, because it covers exactly these two scrapes.
    """

    def change(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    found: dict[str, float] = {}
    if batches := change("latentserve_batch_rows_count"):
        found["batches"] = batches
        found["mean_batch_rows"] = change("latentserve_batch_rows_sum") / batches
    if queued := change("latentserve_queue_seconds_count"):
        found["mean_queue_ms"] = change("latentserve_queue_seconds_sum") / queued * 1e3
    if runs := change("latentserve_engine_seconds_count"):
        found["mean_engine_ms"] = change("latentserve_engine_seconds_sum") / runs * 1e3
    for reason in ("rejected", "dropped", "engine_failures"):
        if count := change(f"latentserve_{reason}_total"):
            found[reason] = count
    # Metrics of Triton.
    if executions := change("nv_inference_exec_count"):
        found["batches"] = executions
        found["mean_batch_rows"] = change("nv_inference_count") / executions
    if succeeded := change("nv_inference_request_success"):
        found["mean_queue_ms"] = change("nv_inference_queue_duration_us") / succeeded / 1e3
        found["mean_engine_ms"] = change("nv_inference_compute_infer_duration_us") / succeeded / 1e3
    if after.has("process_cpu_seconds_total"):
        cpu_s = change("process_cpu_seconds_total")
        found["cpu_s"] = cpu_s
        if handled := change("grpc_server_handled_total") or calls:
            found["cpu_us_per_call"] = cpu_s / handled * 1e6
    if after.has("process_resident_memory_bytes"):
        found["memory_mib_before"] = before.total("process_resident_memory_bytes") / 2**20
        found["memory_mib_after"] = after.total("process_resident_memory_bytes") / 2**20
    return found
