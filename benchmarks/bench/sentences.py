"""What the results say, one sentence each, made from the results and from nothing else."""

from __future__ import annotations

import statistics
from typing import Any

from bench.cells import CALLS_PER_CLIENT, CQ, CQ2, EMPTY
from bench.results import Results, describe_load, describe_rows, median, ratio

TARGET_RATIO = 1.35  # times the CPU of the bare run, at 64 rows: what the project set out for
ONE_CALL = (
    "Shares of the time and of the server's CPU of one call over cq, with the whole above: what a "
    "call costs beside the model is paid once for all its rows, and bytes are paid for each."
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
                    f"bare run (the aim of {TARGET_RATIO:g} is {met}), "
                    f"{ratio(cq, both)} times that of the bare run "
                    "and an empty call of as many bytes together. These two alone are "
                    f"{ratio(both, bare)} times the bare run."
                )
    busiest = max(
        (cell for cell in results.group("curve") if median(cell, CQ, "calls_per_s")),
        key=lambda cell: median(cell, CQ, "calls_per_s") or 0.0,
        default=None,
    )
    if busiest:
        found.append(
            f"At most {median(busiest, CQ, 'calls_per_s'):,.0f} calls per second of one row over "
            f"cq ({busiest['in_flight']} in flight), {median(busiest, CQ, 'cpu_us'):,.0f} µs of "
            f"server CPU each; an empty call takes {median(busiest, EMPTY, 'cpu_us') or 0:,.0f} µs."
        )
    if results.peers:
        behind = results.peers_ahead()
        named = " and ".join(
            [", ".join(results.peers[:-1]), results.peers[-1]][-len(results.peers) :]
        )
        if behind:
            found.append(f"Ahead of {named}, in CPU and in calls per second, except:")
            found[-1] += "".join(f"\n  * {each}" for each in behind)
        else:
            found.append(f"Ahead of {named} at every load, in CPU and in calls per second.")
    return found


def curve(results: Results) -> str:
    """About throughput against latency."""
    cells = [cell for cell in results.group("curve") if median(cell, CQ, "calls_per_s")]
    if not cells:
        return ""
    low, high = cells[0], cells[-1]
    return (
        f"From {low['in_flight']} to {high['in_flight']} calls in flight the rate over cq goes "
        f"from {median(low, CQ, 'calls_per_s'):,.0f} to {median(high, CQ, 'calls_per_s'):,.0f} "
        f"calls per second, and p50 from {median(low, CQ, 'p50_us'):,.0f} to "
        f"{median(high, CQ, 'p50_us'):,.0f} µs."
    )


def workers(results: Results) -> str:
    """About one and two workers."""
    said = [
        f"{two / one:.2f} times the calls of one at {describe_rows(cell)}"
        for cell in results.group("workers")
        if (one := median(cell, CQ, "calls_per_s")) and (two := median(cell, CQ2, "calls_per_s"))
    ]
    cores = results.result["machine"]["cores"]
    return (
        f"Two workers over cq make {' and '.join(said)}, on {cores} cores which they share with "
        "the client."
    )


def rows(results: Results) -> str:
    """About rows per request."""
    cells = [cell for cell in results.group("sizes") if cell["in_flight"] > 1]
    ends = [cell for cell in cells if median(cell, CQ, "cpu_us")]
    if len(ends) < 2:
        return ""
    low, high = ends[0], ends[-1]
    first, last = (_per_row(cell) for cell in (low, high))
    return (
        f"Rows per request: server CPU of a row over cq goes from {first:,.1f} µs "
        f"({describe_load(low)}) to {last:,.1f} µs ({describe_load(high)})."
    )


def models(results: Results) -> str:
    """About the number of loaded models."""
    grown = results.result["growth"]["models"]
    if len(grown) < 2:
        return ""
    low, high = grown[0], grown[-1]
    more = high["models"] - low["models"]
    each_mb = (high["memory_mb"] - low["memory_mb"]) / more
    each_ms = (high["start_s"] - low["start_s"]) / more * 1000
    return (
        f"Models loaded, tiny copies of which one is called: each further one takes {each_mb:.2f} "
        f"MB and {each_ms:.0f} ms of the start; a call costs {_middle(low):,.0f} µs of CPU with "
        f"{low['models']} and {_middle(high):,.0f} µs with {high['models']}."
    )


def clients(results: Results) -> str:
    """About the number of connections."""
    grown = results.result["growth"]["clients"]
    if len(grown) < 2:
        return ""
    low, high = grown[0], grown[-1]
    more = high["clients"] - low["clients"]
    each_kb = (high["resident_mb"] - low["resident_mb"]) / more * 1000
    return (
        f"Connections, with one call in flight and {CALLS_PER_CLIENT} calls or more on each, "
        f"connecting included: from {low['clients']} to "
        f"{high['clients']:,}, CPU per call goes from {_middle(low):,.0f} to {_middle(high):,.0f} "
        f"µs, and each takes {each_kb:.0f} KB at most."
    )


def hours(results: Results) -> str:
    """About the soak: how memory changes in its last two thirds."""
    said = []
    for each in results.result["growth"]["hours"]:
        warm = [
            (calls, mb)
            for calls, mb in zip(each["calls"], each["resident_mb"], strict=True)
            if calls >= each["calls"][-1] / 3
        ]
        if len({calls for calls, _ in warm}) < 3:
            continue
        slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 10_000
        said.append(
            f"{each['name']} {_minutes(each['seconds'][-1])} minutes and {each['calls'][-1]:,} "
            f"calls, {slope:+.3f} MB per 10,000 calls after the first third"
        )
    return f"Hours, by a soak with calls of every kind: {'; '.join(said)}." if said else ""


def _per_row(cell: dict[str, Any]) -> float:
    return (median(cell, CQ, "cpu_us") or 0.0) / int(cell["rows"])


def _middle(each: dict[str, Any]) -> float:
    return float(statistics.median(each["cpu_us"])) if each["cpu_us"] else float("nan")


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:,.0f}" if minutes >= 9.5 else f"{minutes:.1f}"
