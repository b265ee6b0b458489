"""What several workers did in one reload, told as one."""

from __future__ import annotations

from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.reload import join_outcomes


def outcome(action: Action, reason: str = "", version: int = 1) -> Outcome:
    return Outcome("a", version, action, reason)


def test_workers_that_agree_are_told_once_in_order() -> None:
    each = [outcome(Action.LOADED, version=2), outcome(Action.REFUSED, "broken")]
    assert join_outcomes([(1, each), (2, each)]) == [each[1], each[0]]


def test_a_version_that_any_worker_refused_is_refused_and_the_worker_is_named() -> None:
    joined = join_outcomes(
        [(1, [outcome(Action.LOADED)]), (2, [outcome(Action.REFUSED, "no memory")])]
    )
    assert joined == [outcome(Action.REFUSED, "worker 2: no memory")]


def test_what_any_worker_did_counts_more_than_nothing() -> None:
    for action in (Action.LOADED, Action.REMOVED):
        joined = join_outcomes([(1, [outcome(Action.UNCHANGED)]), (2, [outcome(action)])])
        assert joined == [outcome(action)]


def test_a_version_that_one_worker_did_not_know_is_told_by_the_other() -> None:
    assert join_outcomes([(1, []), (2, [outcome(Action.REMOVED)])]) == [outcome(Action.REMOVED)]
