"""The Markdown of results.json."""

from __future__ import annotations

from typing import Any

from bench import plots, sentences
from bench.cells import AIO, AIO2, CQ, CQ2, EMPTY
from bench.results import (
    PEERS,
    Figures,
    load_text,
    median,
    number,
    parts,
    ratio,
    spread,
    table,
    times,
)

HOW = """\
All servers are up at once and take turns at every load, in rounds, so that all see the same
machine; figures are medians over the rounds, with the lowest and the highest. The client of all is
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
    figures = Figures(result)
    there = set(plots.names(result))
    body = [
        *_head(result),
        *_short(figures),
        "## Requests of every size",
        "",
        *_sizes(figures),
        *_plot(there, "throughput-latency", sentences.curve(figures)),
        "## Where the microseconds of one call go",
        "",
        *_parts(figures),
        *_plot(there, "one-call", sentences.ONE_CALL),
        "## Other models, and every call",
        "",
        *_models(figures),
        *_workers(figures, there),
        *_peers(figures),
        "## How cost grows",
        "",
        *_plot(there, "growth-rows", sentences.rows(figures)),
        *_plot(there, "growth-models", sentences.models(figures)),
        *_plot(there, "growth-clients", sentences.clients(figures)),
        *_plot(there, "growth-hours", sentences.hours(figures)),
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


def _short(figures: Figures) -> list[str]:
    found = [f"* {line}" for line in sentences.short(figures)]
    return ["## In short", "", *found, ""] if found else []


def _sizes(figures: Figures) -> list[str]:
    cells = figures.group("sizes")
    heads = ["rows, in flight", "bare run", "empty call", "cq", "aio"]
    heads += ["cq / bare", "cq / empty", "cq / (bare + empty)", "aio / cq"]
    lines = []
    for cell in cells:
        bare, empty, cq = figures.bare_us(cell), median(cell, EMPTY, "cpu_us"), _cpu(cell, CQ)
        lines.append(
            [
                f"{cell['rows']}, {cell['in_flight']}",
                number(bare),
                *(spread(cell, who, "cpu_us") for who in (EMPTY, CQ, AIO)),
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


def _rates(cells: list[dict[str, Any]], who: tuple[str, ...]) -> list[str]:
    heads = ["rows, in flight", *(f"{each}, calls/s" for each in who)]
    heads += [f"{each}, p50 / p99 µs" for each in who]
    lines = [
        [
            f"{cell['rows']}, {cell['in_flight']}",
            *(spread(cell, each, "calls_per_s") for each in who),
            *(
                f"{number(median(cell, each, 'p50_us'))} / {number(median(cell, each, 'p99_us'))}"
                for each in who
            ),
        ]
        for cell in cells
    ]
    return table(heads, lines)


def _parts(figures: Figures) -> list[str]:
    alone, busy = [], []
    for cell in figures.group("sizes"):
        if cell["in_flight"] == 1 and (found := times(figures, cell)):
            whole = median(cell, CQ, "p50_us")
            alone.append([str(cell["rows"]), number(whole), *map(number, found.values())])
        if taken := parts(figures, cell):
            batch = median(cell, CQ, "batch_rows")
            busy.append(
                [
                    f"{cell['rows']}, {cell['in_flight']}",
                    number(batch, "{:.1f}"),
                    number(_cpu(cell, CQ)),
                    *map(number, taken.values()),
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


def _models(figures: Figures) -> list[str]:
    heads = ["call", "bare run", "empty call", "cq", "cq / bare", "cq / (bare + empty)"]
    heads += ["cq, calls/s", "cq, p50 µs"]
    lines = []
    for cell in [*figures.group("models"), *figures.group("calls")]:
        bare, empty, cq = figures.bare_us(cell), median(cell, EMPTY, "cpu_us"), _cpu(cell, CQ)
        line = [
            load_text(cell),
            number(bare),
            *(spread(cell, who, "cpu_us") for who in (EMPTY, CQ)),
            ratio(cq, bare),
            ratio(cq, bare, empty),
            number(median(cell, CQ, "calls_per_s")),
            number(median(cell, CQ, "p50_us")),
        ]
        if line not in lines:  # a cell of both groups
            lines.append(line)
    return ["Server CPU µs per call:", "", *table(heads, lines)]


def _workers(figures: Figures, there: set[str]) -> list[str]:
    who = (CQ, CQ2, AIO, AIO2)
    cells = figures.group("workers")
    heads = ["rows, in flight", *(f"{each}, CPU µs" for each in who)]
    heads += [f"{each}, calls/s" for each in who]
    lines = [
        [
            f"{cell['rows']}, {cell['in_flight']}",
            *(spread(cell, each, "cpu_us") for each in who),
            *(spread(cell, each, "calls_per_s") for each in who),
        ]
        for cell in cells
    ]
    said = sentences.workers(figures)
    return ["## Workers", "", *table(heads, lines), *_plot(there, "workers", said)]


def _peers(figures: Figures) -> list[str]:
    if not figures.peers:
        return []
    who = (CQ, *figures.peers)
    cells = [cell for cell in figures.result["cells"] if not figures.missing_peers(cell)]
    heads = ["call", *(f"{each}, CPU µs" for each in who)]
    heads += [f"{each} / cq" for each in figures.peers]
    cpu = [
        [
            load_text(cell),
            *(spread(cell, each, "cpu_us") for each in who),
            *(ratio(_cpu(cell, each), _cpu(cell, CQ)) for each in figures.peers),
        ]
        for cell in cells
    ]
    heads_rates = ["call", *(f"{each}, calls/s" for each in who)]
    heads_rates += [f"{each}, p50 / p99 µs" for each in who]
    rates = [
        [
            load_text(cell),
            *(number(median(cell, each, "calls_per_s")) for each in who),
            *(
                f"{number(median(cell, each, 'p50_us'))} / {number(median(cell, each, 'p99_us'))}"
                for each in who
            ),
        ]
        for cell in cells
    ]
    setups = [
        f"* {name} ({figures.result['versions'].get(name, '?')}): "
        f"{figures.result['servers'][name]['setup']}"
        for name in figures.peers
    ]
    return [
        "## Other servers",
        "",
        "The same graphs, one ONNX Runtime thread each, and the same client: ModelInfer of the "
        "Open Inference Protocol with raw tensors both ways. How each was set up, by its own "
        "advice ([benchmarks/peers](peers)):",
        "",
        *setups,
        f"* ours: `{figures.result['servers'][CQ]['setup']}`, and nothing tuned.",
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


def _cpu(cell: dict[str, Any], who: str) -> float | None:
    return median(cell, who, "cpu_us")
