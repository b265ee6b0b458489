"""When a worker is started again: pure arithmetic."""

from __future__ import annotations

from latentserve_server.supervisor.restart_policy import RestartPolicy


def test_the_wait_doubles_with_each_early_death_up_to_a_limit() -> None:
    restarts = RestartPolicy(first_delay_s=0.5, longest_delay_s=3.0, well_s=10.0, limit=6)
    assert [restarts.died(0.1) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert restarts.early_deaths == 5


def test_a_good_run_is_followed_at_once_and_starts_the_count_anew() -> None:
    restarts = RestartPolicy(first_delay_s=0.5, well_s=10.0)
    for _ in range(3):
        restarts.died(9.9)
    assert restarts.died(10.0) == 0.0
    assert restarts.early_deaths == 0
    assert restarts.died(1.0) == 0.5


def test_the_patience_ends_after_so_many_early_deaths_in_a_row() -> None:
    restarts = RestartPolicy(limit=3)
    for exhausted in (False, False, True):
        restarts.died(0.0)
        assert restarts.exhausted == exhausted
    restarts.died(3600.0)
    assert not restarts.exhausted


def test_the_delay_of_a_worker_that_never_gets_better_stays_finite() -> None:
    restarts = RestartPolicy(longest_delay_s=30.0)
    assert max(restarts.died(0.0) for _ in range(500)) == 30.0
