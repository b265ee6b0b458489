"""Joined outcomes of one reload by several workers."""

from __future__ import annotations

import threading

import pytest

from latentserve_server.errors import LatentserveError
from latentserve_server.repository.lifecycle import Action, Outcome
from latentserve_server.supervisor.reload import SharedReload, join_outcomes

TIMEOUT_S = 10.0


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


class Reloads:
    """Reloads that end when the test releases them; every second one fails."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.released = threading.Semaphore(0)
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        self.begun.release()
        assert self.released.acquire(timeout=TIMEOUT_S)
        if self.count % 2:
            raise LatentserveError("a worker did not reply")


def test_requests_during_a_reload_share_one_further_reload(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reloads = Reloads()
    shared = SharedReload(reloads)
    assert shared.request()
    assert reloads.begun.acquire(timeout=TIMEOUT_S)
    assert [shared.request() for _ in range(10)] == [True] + 9 * [False]
    reloads.released.release()
    assert reloads.begun.acquire(timeout=TIMEOUT_S)
    reloads.released.release()
    for thread in threading.enumerate():
        if thread.name == "reload":
            thread.join(TIMEOUT_S)
    assert reloads.count == 2
    assert "the reload failed: a worker did not reply" in caplog.text
    assert shared.request()  # the next request starts a new thread
    reloads.released.release()
    assert reloads.begun.acquire(timeout=TIMEOUT_S)
