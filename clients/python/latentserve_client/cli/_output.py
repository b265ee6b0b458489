"""What a command prints and writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_client._results import ServedBy, Timings
from latentserve_client.cli._inputs import UsageError
from latentserve_client.grid import Section, draw


@dataclass(frozen=True)
class Report:
    """The outcome of a command, for a person and for a program."""

    text: str
    data: Mapping[str, Any]
    exit_code: int = 0


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text in aligned columns; what looks like a number is aligned right."""
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


def check_out(out: Path | None) -> None:
    """Raise UsageError before any work is done for a file that cannot be written."""
    if out is None:
        return
    if out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {out}: expected a name that ends in .png or .npz")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")


def write(
    out: Path | None, section: Callable[[], Section], arrays: Mapping[str, NDArray[Any] | None]
) -> str:
    """Write the picture or the arrays, as the suffix says, and return the line to print."""
    if out is None:
        return ""
    if out.suffix == ".png":
        draw([section()]).save(out)
    else:
        present: dict[str, Any] = {k: v for k, v in arrays.items() if v is not None}
        np.savez_compressed(out, **present)
    return f"\nwrote {out}"


def headline(served_by: ServedBy, timings: Timings, what: str, elapsed_s: float) -> str:
    """Return the line that says which model did how much in what time."""
    return (
        f"{served_by.name} v{served_by.version} on {served_by.provider}: {what} in "
        f"{elapsed_s * 1e3:.1f} ms (waited {timings.queue_ns / 1e6:.1f}, "
        f"computed {timings.compute_ns / 1e6:.1f})"
    )


def served_data(served_by: ServedBy, timings: Timings, elapsed_s: float) -> dict[str, Any]:
    """Return the part of the JSON object that every call has."""
    return {
        "model": served_by.name,
        "version": served_by.version,
        "digest": served_by.digest,
        "provider": served_by.provider,
        "elapsed_s": round(elapsed_s, 6),
        "queue_ns": timings.queue_ns,
        "compute_ns": timings.compute_ns,
        "batch_rows": timings.batch_rows,
    }


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text in ("", "-")
    return True
