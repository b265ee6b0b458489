"""Sentences of the report, each generated from the results alone."""

from __future__ import annotations

import statistics
from typing import Any

from bench.cells import CALLS_PER_CLIENT, CQ, CQ2, EMPTY
from bench.results import Results, describe_load, describe_rows, median, ratio

TARGET_RATIO = 1.35  # target of the project: CPU of a call relative to the bare run, at 64 rows
ONE_CALL = (
    "Parts of the duration and of the server CPU of one call over cq, with the total above each "
    "bar: the costs per call are independent of its rows, the costs per byte grow with them."
)


def short(results: Results) -> list[str]:
    """Return the lines of the summary."""
    found = []
    for cell in results.group("sizes"):
        if cell["rows"] == 64 and cell["in_flight"] > 1:
            cq, bare = median(cell, CQ, "cpu_us"), results.bare_us(cell)
            empty = median(cell, EMPTY, "cpu_us")
            if cq and bare:
                both = None if empty is None else bare + empty
                met = "met" if cq / bare <= TARGET_RATIO else "missed"
                found.append(
                    f"64 rows, {cell['in_flight']} in flight: {cq / bare:.2f} times the CPU of the "
                    f"bare run (the target of {TARGET_RATIO:g} is {met}), and "
                    f"{ratio(cq, both)} times the CPU of the bare run plus an empty call with the "
                    f"same number of bytes. These two together are {ratio(both, bare)} times the "
                    "bare run."
                )
    busiest = max(
        (cell for cell in results.group("curve") if median(cell, CQ, "calls_per_s")),
        key=lambda cell: median(cell, CQ, "calls_per_s") or 0.0,
        default=None,
    )
    if busiest:
        found.append(
            f"Maximum rate over cq: {median(busiest, CQ, 'calls_per_s'):,.0f} calls per second of "
            f"one row ({busiest['in_flight']} in flight), with "
            f"{median(busiest, CQ, 'cpu_us'):,.0f} µs of server CPU per call; an empty call takes "
            f"{median(busiest, EMPTY, 'cpu_us') or 0:,.0f} µs."
        )
    if results.peers:
        exceptions = results.peers_ahead()
        named = " and ".join(
            [", ".join(results.peers[:-1]), results.peers[-1]][-len(results.peers) :]
        )
        better = f"Less CPU per call and more calls per second than {named}"
        if exceptions:
            found.append(f"{better}, except:")
            found[-1] += "".join(f"\n  * {each}" for each in exceptions)
        else:
            found.append(f"{better} at every load.")
    return found


def curve(results: Results) -> str:
    """Return the sentence about throughput and latency."""
    cells = [cell for cell in results.group("curve") if median(cell, CQ, "calls_per_s")]
    if not cells:
        return ""
    low, high = cells[0], cells[-1]
    return (
        f"From {low['in_flight']} to {high['in_flight']} calls in flight, the rate over cq changes "
        f"from {median(low, CQ, 'calls_per_s'):,.0f} to {median(high, CQ, 'calls_per_s'):,.0f} "
        f"calls per second, and p50 from {median(low, CQ, 'p50_us'):,.0f} to "
        f"{median(high, CQ, 'p50_us'):,.0f} µs."
    )


def workers(results: Results) -> str:
    """Return the sentence about one and two workers."""
    ratios = [
        f"{two / one:.2f} times the rate of one at {describe_rows(cell)}"
        for cell in results.group("workers")
        if (one := median(cell, CQ, "calls_per_s")) and (two := median(cell, CQ2, "calls_per_s"))
    ]
    cores = results.result["machine"]["cores"]
    return (
        f"Two workers over cq reach {' and '.join(ratios)}, on {cores} cores shared with the "
        "client."
    )


def rows(results: Results) -> str:
    """Return the sentence about rows per request."""
    cells = [cell for cell in results.group("sizes") if cell["in_flight"] > 1]
    ends = [cell for cell in cells if median(cell, CQ, "cpu_us")]
    if len(ends) < 2:
        return ""
    low, high = ends[0], ends[-1]
    first, last = (_per_row(cell) for cell in (low, high))
    return (
        f"Rows per request: server CPU per row over cq changes from {first:,.1f} µs "
        f"({describe_load(low)}) to {last:,.1f} µs ({describe_load(high)})."
    )


def models(results: Results) -> str:
    """Return the sentence about the number of loaded models."""
    grown = results.result["growth"]["models"]
    if len(grown) < 2:
        return ""
    low, high = grown[0], grown[-1]
    more = high["models"] - low["models"]
    each_mb = (high["memory_mb"] - low["memory_mb"]) / more
    each_ms = (high["start_s"] - low["start_s"]) / more * 1000
    return (
        f"Loaded models (small copies, one of which is called): each additional model takes "
        f"{each_mb:.2f} MB and {each_ms:.0f} ms of start-up time; a call takes "
        f"{_middle(low):,.0f} µs of CPU with {low['models']} loaded and {_middle(high):,.0f} µs "
        f"with {high['models']}."
    )


def clients(results: Results) -> str:
    """Return the sentence about the number of connections."""
    grown = results.result["growth"]["clients"]
    if len(grown) < 2:
        return ""
    low, high = grown[0], grown[-1]
    more = high["clients"] - low["clients"]
    each_kb = (high["resident_mb"] - low["resident_mb"]) / more * 1000
    return (
        f"Connections, with one call in flight and at least {CALLS_PER_CLIENT} calls on each, "
        f"including connection set-up: from {low['clients']} to {high['clients']:,} connections, "
        f"CPU per call changes from {_middle(low):,.0f} to {_middle(high):,.0f} µs, and a "
        f"connection takes at most {each_kb:.0f} KB."
    )


def hours(results: Results) -> str:
    """Return the sentence about memory in the last two thirds of the soak tests."""
    found = []
    for each in results.result["growth"]["hours"]:
        warm = [
            (calls, mb)
            for calls, mb in zip(each["calls"], each["resident_mb"], strict=True)
            if calls >= each["calls"][-1] / 3
        ]
        if len({calls for calls, _ in warm}) < 3:
            continue
        slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 10_000
        found.append(
            f"{each['name']} {slope:+.3f} MB per 10,000 calls after the first third of "
            f"{_minutes(each['seconds'][-1])} minutes and {each['calls'][-1]:,} calls"
        )
    return f"Memory in soak tests with all kinds of calls: {'; '.join(found)}." if found else ""


def _per_row(cell: dict[str, Any]) -> float:
    return (median(cell, CQ, "cpu_us") or 0.0) / int(cell["rows"])


def _middle(each: dict[str, Any]) -> float:
    return float(statistics.median(each["cpu_us"])) if each["cpu_us"] else float("nan")


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:,.0f}" if minutes >= 9.5 else f"{minutes:.1f}"
