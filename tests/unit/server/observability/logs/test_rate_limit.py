"""Tests of the limit of log lines, with a clock that the tests set."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from latentserve_server.observability.logs import rate_limit as log_limit
from latentserve_server.observability.logs.rate_limit import (
    LINES_PER_PERIOD,
    PERIOD_S,
    LineLimit,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> LineLimit:
    return LineLimit(clock)


def admitted(limit: LineLimit, kind: str, lines: int) -> int:
    return sum(limit.admit(kind, logging.INFO) for _ in range(lines))


def test_the_first_lines_of_each_kind_are_admitted_and_the_rest_counted(
    limit: LineLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert admitted(limit, "UNAUTHENTICATED", 500) == LINES_PER_PERIOD
    assert admitted(limit, "NOT_FOUND", 3) == 3
    limit.report()
    assert not caplog.records
    clock.now += 1.5 * PERIOD_S
    limit.report()
    assert caplog.messages == ["UNAUTHENTICATED: 490 more lines in 1.5 s were not written"]
    assert vars(caplog.records[0])["withheld"] == 490
    assert admitted(limit, "UNAUTHENTICATED", 500) == LINES_PER_PERIOD


def test_lines_are_written_again_without_a_report(limit: LineLimit, clock: Clock) -> None:
    admitted(limit, "INTERNAL", 11)
    clock.now += 2 * PERIOD_S
    assert admitted(limit, "INTERNAL", 11) == LINES_PER_PERIOD


def test_few_lines_need_no_report(
    limit: LineLimit, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(20):
        assert admitted(limit, "INTERNAL", LINES_PER_PERIOD) == LINES_PER_PERIOD
        clock.now += PERIOD_S
        limit.report()
    assert not caplog.records


def test_the_last_report_ends_the_current_period(
    limit: LineLimit, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    admitted(limit, "INTERNAL", LINES_PER_PERIOD + 1)
    limit.report(final=True)
    assert "INTERNAL: 1 more lines" in caplog.text


def test_the_number_of_kinds_is_bounded(limit: LineLimit) -> None:
    assert sum(limit.admit(str(n), logging.INFO) for n in range(5000)) == 1000


def test_reports_are_regular(
    monkeypatch: pytest.MonkeyPatch, limit: LineLimit, clock: Clock
) -> None:
    monkeypatch.setattr(log_limit, "PERIOD_S", 0.001)
    admitted(limit, "INTERNAL", LINES_PER_PERIOD + 1)
    clock.now += 1

    async def wait() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await limit.report_regularly()

    asyncio.run(wait())
    assert admitted(limit, "INTERNAL", LINES_PER_PERIOD) == LINES_PER_PERIOD
