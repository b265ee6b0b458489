"""Restart delays and the limit of early exits."""

from __future__ import annotations

from latentserve_server.supervisor.restart_policy import RestartPolicy


def test_the_delay_doubles_with_each_early_exit_up_to_a_limit() -> None:
    restarts = RestartPolicy(first_delay_s=0.5, max_delay_s=3.0, healthy_after_s=10.0, limit=6)
    assert [restarts.record_exit(0.1) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert restarts.early_exits == 5


def test_a_healthy_run_resets_the_count_and_the_delay() -> None:
    restarts = RestartPolicy(first_delay_s=0.5, healthy_after_s=10.0)
    for _ in range(3):
        restarts.record_exit(9.9)
    assert restarts.record_exit(10.0) == 0.0
    assert restarts.early_exits == 0
    assert restarts.record_exit(1.0) == 0.5


def test_the_policy_is_exhausted_after_the_limit_of_consecutive_early_exits() -> None:
    restarts = RestartPolicy(limit=3)
    for exhausted in (False, False, True):
        restarts.record_exit(0.0)
        assert restarts.exhausted == exhausted
    restarts.record_exit(3600.0)
    assert not restarts.exhausted


def test_the_delay_stays_bounded_after_many_early_exits() -> None:
    restarts = RestartPolicy(max_delay_s=30.0)
    assert max(restarts.record_exit(0.0) for _ in range(500)) == 30.0
