"""The Markdown of what gpu.py measured."""

from __future__ import annotations

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """Return the report of the result that gpu.json holds."""
    machine, server = result["machine"], result["server"]
    return "\n".join(
        [
            "# latentserve on a GPU" if machine["gpu"] else "# latentserve without a GPU",
            "",
            f"{machine['gpu'] or 'No GPU: the CPU provider'}, {machine['date']}; "
            f"{machine['cores']} cores, Python {machine['python']}, onnxruntime "
            f"{machine['onnxruntime']}, latentserve {machine['latentserve']}; {machine['model']}, "
            f"{machine['operation']}. {result['seconds']:.0f} s for everything.",
            "",
            *_tests(result.get("tests")),
            "## The graph alone",
            "",
            "Median milliseconds of one batch. Bare: on data that lies on the device already; the "
            "others with the copies there and back.",
            "",
            *_engine(result["engine_ms"]),
            "## The server",
            "",
            f"Requests of {server['rows_per_request']} rows, uint8 there and back, several in "
            "flight from clients in processes of their own.",
            "",
            *_table(
                "way", "rows per second", server["rows_per_s"], "{:,.0f}", *_bare(result, server)
            ),
            *_table("workers", "rows per second", server["rows_per_s_by_workers"], "{:,.0f}"),
            *_table(
                "convolution search",
                "seconds from the start to the first answer",
                server["first_answer_s"],
                "{:.2f}",
            ),
            "## Not measured",
            "",
            *([f"* {each}" for each in result["missing"]] or ["Nothing was left out."]),
            "",
        ]
    )


def _tests(tests: dict[str, Any] | None) -> list[str]:
    if tests is None:
        return []
    failed = [f"* {line}" for line in tests["failed"]]
    return [f"Tests marked `gpu`: {tests['outcome']}", "", *failed, *([""] if failed else [])]


def _engine(table: dict[str, dict[int, float]]) -> list[str]:
    rows = sorted({int(each) for times in table.values() for each in times})
    if not rows:
        return ["Nothing was measured.", ""]
    lines = [f"| rows | {' | '.join(table)} |", f"|---|{'---|' * len(table)}"]
    for count in rows:
        cells = [f"{times[count]:.3f}" if count in times else "–" for times in table.values()]
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return [*lines, ""]


def _bare(result: dict[str, Any], server: dict[str, Any]) -> list[str]:
    """What the best server adds to the bare run of as many rows, where both were measured."""
    rows = server["rows_per_request"]
    bare_ms = result["engine_ms"].get("bare run", {}).get(rows)
    rates = {name: rate for name, rate in server["rows_per_s"].items() if rate}
    if not bare_ms or not rates:
        return []
    bare = 1000 * rows / bare_ms
    name, rate = max(rates.items(), key=lambda each: each[1])
    return [
        f"The bare run makes {bare:,.0f} rows per second; the best server ({name}) takes "
        f"{100 * (bare / rate - 1):.0f} % more time for each."
    ]


def _table(
    first: str, second: str, results: dict[Any, float | None], form: str, *below: str
) -> list[str]:
    lines = [f"| {first} | {second} |", "|---|---|"]
    for name, figure in results.items():
        lines.append(f"| {name} | {'–' if figure is None else form.format(figure)} |")
    return [*lines, "", *below, *([""] if below else [])]
