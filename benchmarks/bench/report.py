"""The Markdown of results.json."""

from __future__ import annotations

from typing import Any

from bench import plots, sentences
from bench.cells import AIO, AIO2, CQ, CQ2, EMPTY
from bench.results import (
    PEERS,
    Results,
    describe_load,
    format_number,
    median,
    parts,
    ratio,
    spread,
    table,
    times,
)

HOW = """\
All servers are up at once and take turns at every load, in rounds, so that all see the same
machine; results are medians over the rounds, with the lowest and the highest. The client of all is
h2load with a request that was serialised once, on the same cores as the servers: **calls per second
are what client and server reach together; server CPU per call is the steadier figure.** It is
user and system time of all the server's processes, from /proc. Every kind of call was answered
rightly, compared with the graph alone, before it was measured, and replies are counted in bytes, so
that refused calls are found out.

* *bare run*: the graph alone in ONNX Runtime, one thread, as many rows as one request has. A server
  that puts several requests into one batch can be cheaper than that.
* *empty call*: a Python server on grpcio's completion queue that answers as many bytes with as
  many bytes and does nothing else.
* *cq*, *aio*: our server over its two transports; *× 2*: with two workers."""


def markdown(result: dict[str, Any]) -> str:
    """Return the report."""
    results = Results(result)
    there = set(plots.names(result))
    body = [
        *_head(result),
        *_short(results),
        "## Requests of every size",
        "",
        *_sizes(results),
        *_plot(there, "throughput-latency", sentences.curve(results)),
        "## Where the microseconds of one call go",
        "",
        *_parts(results),
        *_plot(there, "one-call", sentences.ONE_CALL),
        "## Other models, and every call",
        "",
        *_models(results),
        *_workers(results, there),
        *_peers(results),
        "## How cost grows",
        "",
        *_plot(there, "growth-rows", sentences.rows(results)),
        *_plot(there, "growth-models", sentences.models(results)),
        *_plot(there, "growth-clients", sentences.clients(results)),
        *_plot(there, "growth-hours", sentences.hours(results)),
        *_start(result),
        "## What was chosen, and what was not measured",
        "",
        *(f"* {name}: {why}" for name, why in result["groups"].items()),
        *(f"* Not measured: {each}" for each in result["missing"]),
        "",
    ]
    return "\n".join(body)


def _head(result: dict[str, Any]) -> list[str]:
    machine, versions = result["machine"], result["versions"]
    listed = ", ".join(
        f"{name} {version}" for name, version in versions.items() if name not in PEERS
    )
    return [
        "# Benchmarks",
        "",
        "<!-- Written by benchmarks/run.py from results.json; change neither by hand. -->",
        "",
        f"{result['date']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine.get('memory_gib', '?')} GiB, {machine['system']}, load average "
        f"{machine.get('load_average_1min', '?')} before; {listed}. Rounds: {result['rounds']}, of "
        f"{result['turn_s']:g} s a turn, {result['seconds'] / 60:.0f} minutes in all. "
        "`make bench` repeats it.",
        "",
        HOW,
        "",
    ]


def _short(results: Results) -> list[str]:
    found = [f"* {line}" for line in sentences.short(results)]
    return ["## In short", "", *found, ""] if found else []


def _sizes(results: Results) -> list[str]:
    cells = results.group("sizes")
    heads = ["rows, in flight", "bare run", "empty call", "cq", "aio"]
    heads += ["cq / bare", "cq / empty", "cq / (bare + empty)", "aio / cq"]
    lines = []
    for cell in cells:
        bare, empty, cq = results.bare_us(cell), median(cell, EMPTY, "cpu_us"), _cpu(cell, CQ)
        lines.append(
            [
                f"{cell['rows']}, {cell['in_flight']}",
                format_number(bare),
                *(spread(cell, server, "cpu_us") for server in (EMPTY, CQ, AIO)),
                ratio(cq, bare),
                ratio(cq, empty),
                ratio(cq, bare, empty),
                ratio(_cpu(cell, AIO), cq),
            ]
        )
    return [
        "Reconstruct of the MLP, 784-400-20-400-784, float32 there and back. Server CPU µs per "
        "call:",
        "",
        *table(heads, lines),
        "Calls per second, and the time of a call in µs:",
        "",
        *_rates(cells, (EMPTY, CQ, AIO)),
    ]


def _rates(cells: list[dict[str, Any]], servers: tuple[str, ...]) -> list[str]:
    heads = ["rows, in flight", *(f"{each}, calls/s" for each in servers)]
    heads += [f"{each}, p50 / p99 µs" for each in servers]
    lines = [
        [
            f"{cell['rows']}, {cell['in_flight']}",
            *(spread(cell, each, "calls_per_s") for each in servers),
            *(_p50_p99(cell, each) for each in servers),
        ]
        for cell in cells
    ]
    return table(heads, lines)


def _parts(results: Results) -> list[str]:
    alone, busy = [], []
    for cell in results.group("sizes"):
        if cell["in_flight"] == 1 and (found := times(results, cell)):
            whole = median(cell, CQ, "p50_us")
            alone.append(
                [str(cell["rows"]), format_number(whole), *map(format_number, found.values())]
            )
        if taken := parts(results, cell):
            batch = median(cell, CQ, "batch_rows")
            busy.append(
                [
                    f"{cell['rows']}, {cell['in_flight']}",
                    format_number(batch, "{:.1f}"),
                    format_number(_cpu(cell, CQ)),
                    *map(format_number, taken.values()),
                ]
            )
    heads = ["rows", "p50", "model", "around the model", "queue", "transport", "the rest"]
    more = ["rows, in flight", "rows of a batch", "CPU", "model", "transport", "the rest"]
    return [
        "Time, one call in flight, cq, µs. Model: the bare run. Around it, and queue: by the "
        "server's own timings, which are those in the replies. Transport: p50 of the empty call. "
        "The rest is p50 less these; the model's part is CPU time, and timings are means:",
        "",
        *table(heads, alone),
        "Server CPU per call, cq, µs. Model: the bare run of a batch as large as the mean of those "
        "that were formed, and of that the call's share. Transport: the empty call under the same "
        "load. A rest below zero is what batches save the transport:",
        "",
        *table(more, busy),
    ]


def _models(results: Results) -> list[str]:
    heads = ["call", "bare run", "empty call", "cq", "cq / bare", "cq / (bare + empty)"]
    heads += ["cq, calls/s", "cq, p50 µs"]
    lines = []
    for cell in [*results.group("models"), *results.group("calls")]:
        bare, empty, cq = results.bare_us(cell), median(cell, EMPTY, "cpu_us"), _cpu(cell, CQ)
        line = [
            describe_load(cell),
            format_number(bare),
            *(spread(cell, server, "cpu_us") for server in (EMPTY, CQ)),
            ratio(cq, bare),
            ratio(cq, bare, empty),
            format_number(median(cell, CQ, "calls_per_s")),
            format_number(median(cell, CQ, "p50_us")),
        ]
        if line not in lines:  # a cell of both groups
            lines.append(line)
    return ["Server CPU µs per call:", "", *table(heads, lines)]


def _workers(results: Results, there: set[str]) -> list[str]:
    servers = (CQ, CQ2, AIO, AIO2)
    cells = results.group("workers")
    heads = ["rows, in flight", *(f"{each}, CPU µs" for each in servers)]
    heads += [f"{each}, calls/s" for each in servers]
    lines = [
        [
            f"{cell['rows']}, {cell['in_flight']}",
            *(spread(cell, each, "cpu_us") for each in servers),
            *(spread(cell, each, "calls_per_s") for each in servers),
        ]
        for cell in cells
    ]
    said = sentences.workers(results)
    return ["## Workers", "", *table(heads, lines), *_plot(there, "workers", said)]


def _peers(results: Results) -> list[str]:
    if not results.peers:
        return []
    servers = (CQ, *results.peers)
    cells = [cell for cell in results.result["cells"] if not results.missing_peers(cell)]
    heads = ["call", *(f"{each}, CPU µs" for each in servers)]
    heads += [f"{each} / cq" for each in results.peers]
    cpu = [
        [
            describe_load(cell),
            *(spread(cell, each, "cpu_us") for each in servers),
            *(ratio(_cpu(cell, each), _cpu(cell, CQ)) for each in results.peers),
        ]
        for cell in cells
    ]
    heads_rates = ["call", *(f"{each}, calls/s" for each in servers)]
    heads_rates += [f"{each}, p50 / p99 µs" for each in servers]
    rates = [
        [
            describe_load(cell),
            *(format_number(median(cell, each, "calls_per_s")) for each in servers),
            *(_p50_p99(cell, each) for each in servers),
        ]
        for cell in cells
    ]
    setups = [
        f"* {name} ({results.result['versions'].get(name, '?')}): "
        f"{results.result['servers'][name]['setup']}"
        for name in results.peers
    ]
    return [
        "## Other servers",
        "",
        "The same graphs, one ONNX Runtime thread each, and the same client: ModelInfer of the "
        "Open Inference Protocol with raw tensors both ways. How each was set up, by its own "
        "advice ([benchmarks/peers](peers)):",
        "",
        *setups,
        f"* ours: `{results.result['servers'][CQ]['setup']}`, and nothing tuned.",
        "",
        *table(heads, cpu),
        *table(heads_rates, rates),
    ]


def _start(result: dict[str, Any]) -> list[str]:
    heads = ["server", "processes", "s to the first right answer", "MB before"]
    heads += ["MB after all loads", "idle, % of a core"]
    lines = [
        [
            name,
            str(about["processes"]),
            f"{about['start_s']:.2f}",
            f"{about['fresh_mb']:.0f}",
            f"{about['used_mb']:.0f}",
            f"{100 * about['idle_share']:.1f}",
        ]
        for name, about in result["servers"].items()
    ]
    return [
        "## Start and memory",
        "",
        "Four models for ours, three for the others; megabytes of all processes together, shared "
        "pages counted once:",
        "",
        *table(heads, lines),
    ]


def _plot(there: set[str], name: str, sentence: str) -> list[str]:
    if f"{name}.png" not in there:
        return []
    return [f"![{sentence}](plots/{name}.png)", "", sentence, ""]


def _cpu(cell: dict[str, Any], server: str) -> float | None:
    return median(cell, server, "cpu_us")


def _p50_p99(cell: dict[str, Any], server: str) -> str:
    p50, p99 = (format_number(median(cell, server, name)) for name in ("p50_us", "p99_us"))
    return f"{p50} / {p99}"
