"""The soak's check itself: what it must catch, and what it must let pass."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from soak_samples import Sample, Verdict, write_csv
from vitals import slope


def run(
    bytes_per_call: float,
    *,
    calls: int = 100_000,
    noise_mb: float = 1.5,
    threads_per_10k: float = 0.0,
    files_per_10k: float = 0.0,
) -> list[Sample]:
    """Samples of a server that fills its caches in the first fifth, and leaks so much."""
    noise = np.random.default_rng(1).normal(0, noise_mb, 200)
    samples = []
    for number, wobble in enumerate(noise):
        done = calls * (number + 1) // len(noise)
        cache_mb = 40 * min(1.0, done / (calls / 5))
        leaked_mb = done * bytes_per_call / 1e6
        threads = 20 + int(done / 10_000 * threads_per_10k) + number % 3
        files = 30 + int(done / 10_000 * files_per_10k) + number % 5
        memory_mb = 120 + cache_mb + leaked_mb + float(wobble)
        samples.append(Sample(number * 0.5, done, memory_mb, threads, files))
    return samples


def test_the_slope_of_a_line_is_exact_and_noise_averages_out() -> None:
    assert slope([(x, 3.0 * x - 7.0) for x in (0.0, 1.0, 2.5, 9.0)]) == pytest.approx(3.0)
    noise = np.random.default_rng(0).normal(0, 0.5, 400)
    assert slope([(x / 40, 2 * x / 40 + e) for x, e in enumerate(noise)]) == pytest.approx(
        2, abs=0.05
    )


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(1.0, 2.0)] * 5])
def test_what_has_no_slope_is_an_error(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match=r"slope|same x"):
        slope(points)


def test_a_server_that_only_fills_its_caches_passes() -> None:
    verdict = Verdict.of(run(0))
    assert verdict.problems == []
    assert abs(verdict.mb_per_10k_calls) < 0.3
    assert verdict.calls == 100_000


@pytest.mark.parametrize("bytes_per_call", [130, 300, 1024])
def test_a_leak_is_caught(bytes_per_call: float) -> None:
    verdict = Verdict.of(run(bytes_per_call))
    assert verdict.mb_per_10k_calls == pytest.approx(bytes_per_call / 100, abs=0.3)
    assert "memory grows" in verdict.problems[0]


def test_threads_and_files_that_pile_up_are_caught() -> None:
    assert "threads" in Verdict.of(run(0, threads_per_10k=3)).problems[0]
    assert "files" in Verdict.of(run(0, files_per_10k=3)).problems[0]


def test_no_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Verdict.of([])


def test_the_samples_are_written_for_a_plot(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "soak.csv"
    write_csv(path, [Sample(0.5, 10, 100.25, 20, 30)])
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "seconds": "0.5",
        "calls": "10",
        "resident_mb": "100.25",
        "threads": "20",
        "files": "30",
    }
