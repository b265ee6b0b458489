"""The loads of the benchmark: bounded, each measured once, and such that peers can take them."""

from __future__ import annotations

import pytest

from bench import peers
from bench.cells import CQ, EMPTY, GROUPS, QUEUE_ROWS, Cell, cells, merged, tiny


def cell(rows: int, in_flight: int, group: str, *servers: str) -> Cell:
    return Cell("bench-mlp", "Reconstruct", rows, in_flight, 1, servers, (group,))


@pytest.mark.parametrize("plan", [cells, tiny])
def test_every_group_is_there_and_no_load_is_refused(plan: object) -> None:
    found = cells(["triton"]) if plan is cells else tiny(["triton"])
    assert {group for each in found for group in each.groups} == set(GROUPS)
    assert len({each.key for each in found}) == len(found)
    for each in found:
        assert each.rows * each.in_flight <= QUEUE_ROWS
        assert {EMPTY, CQ} <= set(each.servers)
        assert each.in_flight % each.connections == 0


def test_all_that_the_report_promises_is_covered() -> None:
    found = cells([])
    assert {each.rows for each in found} == {1, 16, 64, 256}
    assert {1, 32, 128} <= {each.in_flight for each in found}
    calls = {"Encode", "Decode", "Reconstruct", "Denoise", "Sample", "SampleStream"}
    assert {each.rpc for each in found} == calls
    assert {"cq", "aio", "cq × 2", "aio × 2"} <= {name for each in found for name in each.servers}


def test_peers_are_given_the_calls_alone_that_they_serve() -> None:
    for each in cells(list(peers.SETUPS)):
        if set(each.servers) & set(peers.SETUPS):
            assert peers.CALLED[each.model] == each.rpc


def test_a_load_that_two_groups_ask_for_is_measured_once_on_the_servers_of_both() -> None:
    (found,) = merged([cell(1, 32, "sizes", "cq", "aio"), cell(1, 32, "curve", "cq", "triton")])
    assert found.servers == ("cq", "aio", "triton")
    assert found.groups == ("sizes", "curve")


def test_a_load_beyond_the_queue_is_refused_when_the_plan_is_made() -> None:
    with pytest.raises(ValueError, match="4096 rows"):
        merged([cell(64, 128, "sizes", "cq")])
