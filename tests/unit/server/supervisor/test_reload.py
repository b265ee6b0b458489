"""Joined outcomes of one reload by several workers."""

from __future__ import annotations

from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.reload import join_outcomes


def outcome(action: Action, reason: str = "", version: int = 1) -> Outcome:
    return Outcome("a", version, action, reason)


def test_equal_outcomes_of_workers_are_joined_and_sorted() -> None:
    each = [outcome(Action.LOADED, version=2), outcome(Action.REFUSED, "broken")]
    assert join_outcomes([(1, each), (2, each)]) == [each[1], each[0]]


def test_a_version_that_any_worker_refused_is_refused_and_the_worker_is_named() -> None:
    joined = join_outcomes(
        [(1, [outcome(Action.LOADED)]), (2, [outcome(Action.REFUSED, "no memory")])]
    )
    assert joined == [outcome(Action.REFUSED, "worker 2: no memory")]


def test_an_action_of_any_worker_takes_precedence_over_unchanged() -> None:
    for action in (Action.LOADED, Action.REMOVED):
        joined = join_outcomes([(1, [outcome(Action.UNCHANGED)]), (2, [outcome(action)])])
        assert joined == [outcome(action)]


def test_a_version_known_to_one_worker_only_is_reported() -> None:
    assert join_outcomes([(1, []), (2, [outcome(Action.REMOVED)])]) == [outcome(Action.REMOVED)]
