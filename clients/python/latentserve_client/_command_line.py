"""Result, errors and table format that all commands of the command line share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UsageError(Exception):
    """The options are invalid or conflict."""


class CommandError(Exception):
    """A command failed for another reason than a failed call."""


@dataclass(frozen=True)
class CommandResult:
    """Result of a command, as text and as JSON data."""

    text: str
    data: Mapping[str, Any]
    exit_code: int = 0


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in aligned columns; columns of numbers are aligned right."""
    cells = [list(headers), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    numeric = [
        bool(rows) and all(_is_number(row[column]) for row in rows)
        for column in range(len(headers))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("", "-")
    return True
