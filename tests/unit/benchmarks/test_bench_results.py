"""What the report computes: medians, ratios, and how the cost of a call is taken apart."""

from __future__ import annotations

from typing import Any

import pytest

from bench import bare, sentences
from bench.results import Results, median, parts, ratio, spread, times


def cell(rows: int = 64, in_flight: int = 32, **measured: dict[str, list[float]]) -> dict[str, Any]:
    named = {name.replace("_", " "): results for name, results in measured.items()}
    return {
        "model": "bench-mlp",
        "rpc": "Reconstruct",
        "rows": rows,
        "in_flight": in_flight,
        "connections": 1,
        "groups": ["sizes"],
        "who": named,
    }


def result(*found: dict[str, Any]) -> Results:
    costs = [(1, [30.0]), (16, [90.0, 100.0, 110.0]), (64, [400.0])]
    runs = [
        {"model": "bench-mlp", "rpc": "Reconstruct", "rows": rows, "cpu_us": us}
        for rows, us in costs
    ]
    return Results({"cells": list(found), "bare": runs, "machine": {"cores": 2}, "missing": []})


def test_medians_are_over_the_rounds_and_absent_figures_are_dashes() -> None:
    one = cell(cq={"cpu_us": [3.0, 1000.0, 5.0]})
    assert median(one, "cq", "cpu_us") == 5.0
    assert spread(one, "cq", "cpu_us") == "5 (3–1,000)"
    assert median(one, "aio", "cpu_us") is None
    assert spread(one, "aio", "cpu_us") == "–"


def test_a_ratio_is_by_the_sum_and_needs_all_of_it() -> None:
    assert ratio(30.0, 10.0, 5.0) == "2.00"
    assert ratio(30.0, 10.0, None) == "–"
    assert ratio(None, 10.0) == "–"
    assert ratio(30.0, 0.0) == "–"


def test_a_batch_between_those_that_were_measured_is_interpolated_and_shared() -> None:
    known = [(1, 30.0), (16, 100.0), (64, 400.0)]
    assert bare.call_share_us(known, 16.0, 1) == pytest.approx(100 / 16)
    assert bare.call_share_us(known, 40.0, 2) == pytest.approx(250 / 40 * 2)
    assert bare.call_share_us(known, 64.0, 256) == pytest.approx(1600)


def test_the_cpu_of_a_call_is_model_transport_and_the_rest() -> None:
    one = cell(1, 32, cq={"cpu_us": [60.0], "batch_rows": [16.0]}, empty_call={"cpu_us": [20.0]})
    taken = parts(result(one), one)
    assert taken == pytest.approx({"model": 6.25, "transport": 20.0, "the rest": 33.75})
    assert parts(result(one), one, "triton") is None


def test_the_time_of_a_call_adds_up_to_its_median() -> None:
    ours = {"p50_us": [200.0], "queue_us": [12.0], "engine_us": [70.0]}
    one = cell(1, 1, cq=ours, empty_call={"p50_us": [50.0]})
    taken = times(result(one), one)
    assert taken == {
        "model": 30.0,
        "around the model": 40.0,
        "queue": 12.0,
        "transport": 50.0,
        "the rest": 68.0,
    }
    assert sum(taken.values()) == 200.0


@pytest.mark.parametrize(("cpu_us", "said"), [(520.0, "is met"), (560.0, "is missed")])
def test_the_aim_is_said_to_be_met_or_missed(cpu_us: float, said: str) -> None:
    one = cell(cq={"cpu_us": [cpu_us]}, empty_call={"cpu_us": [100.0]})
    (line,) = sentences.short(result(one))
    assert f"{cpu_us / 400:.2f} times the CPU" in line
    assert said in line
    assert "These two alone are 1.25 times the bare run." in line


def test_every_load_at_which_a_peer_is_ahead_is_named() -> None:
    ours = {"cpu_us": [500.0], "calls_per_s": [1000.0]}
    cheaper = cell(16, cq=ours, triton={"cpu_us": [400.0], "calls_per_s": [900.0]})
    faster = cell(64, cq=ours, triton={"cpu_us": [600.0], "calls_per_s": [1100.0]})
    behind = cell(256, 16, cq=ours, triton={"cpu_us": [600.0], "calls_per_s": [900.0]})
    text = "\n".join(sentences.short(result(cheaper, faster, behind)))
    assert "16 rows, 32 in flight: CPU µs per call 400, ours 500" in text
    assert "64 rows, 32 in flight: calls/s 1,100, ours 1,000" in text
    assert "256 rows" not in text
    alone = "\n".join(sentences.short(result(behind)))
    assert "Ahead of triton at every load" in alone


@pytest.mark.parametrize(("highest", "said"), [(410.0, False), (600.0, True)])
def test_of_a_lead_within_the_noise_it_is_said(highest: float, said: bool) -> None:
    ours = {"cpu_us": [490.0, 500.0, 510.0]}
    one = cell(cq=ours, triton={"cpu_us": [380.0, 400.0, highest]})
    (line,) = result(one).peers_ahead()
    assert line.endswith("(the ranges overlap)") is said
