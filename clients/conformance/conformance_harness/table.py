"""Text table with aligned columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def format_table(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Return the lines of a table; the first column is left-aligned, the others right-aligned."""
    table = [[corner, *columns], *([name, *cells] for name, cells in rows.items())]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in table
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])
