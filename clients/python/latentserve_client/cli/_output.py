"""Output of a command: files, headline and JSON data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentserve_client._command_line import UsageError
from latentserve_client._command_line import (
    table as table,  # for latentserve_client.demo
)
from latentserve_client._results import ServedBy, Timings
from latentserve_client.grid import Section, draw


def check_out(out: Path | None) -> None:
    """Raise UsageError for an output file that cannot be written, before any call."""
    if out is None:
        return
    if out.suffix not in (".png", ".npz"):
        raise UsageError(f"--out {out}: the name must end in .png or .npz")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: the folder {out.parent} does not exist")


def write(
    out: Path | None, section: Callable[[], Section], arrays: Mapping[str, NDArray[Any] | None]
) -> str:
    """Write the image grid (.png) or the arrays (.npz) and return the line to print."""
    if out is None:
        return ""
    if out.suffix == ".png":
        draw([section()]).save(out)
    else:
        present: dict[str, Any] = {k: v for k, v in arrays.items() if v is not None}
        np.savez_compressed(out, **present)
    return f"\nwrote {out}"


def headline(served_by: ServedBy, timings: Timings, summary: str, elapsed_s: float) -> str:
    """Return the line with the model, the work done and the time it took."""
    return (
        f"{served_by.name} v{served_by.version} on {served_by.provider}: {summary} in "
        f"{elapsed_s * 1e3:.1f} ms (queued {timings.queue_ns / 1e6:.1f}, "
        f"computed {timings.compute_ns / 1e6:.1f})"
    )


def served_data(served_by: ServedBy, timings: Timings, elapsed_s: float) -> dict[str, Any]:
    """Return the JSON data common to all calls."""
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
