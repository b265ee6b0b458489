"""Log lines in the readable and the JSON format."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latentserve_server.observability.logs import format as log_format
from latentserve_server.observability.logs.rate_limit import (
    LIMITED_LOGGERS,
    LINES_PER_PERIOD,
    LineLimit,
    limit_flood,
)

log = logging.getLogger("latentserve_server.test")


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Restore the process-wide state that `configure` changes."""
    root, success = logging.getLogger(), logging.getLogger(log_format.SUCCESS_LOGGER)
    before = list(root.handlers), root.level, success.level, sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    for name in LIMITED_LOGGERS:
        logging.getLogger(name).removeFilter(limit_flood)
    root.handlers[:], root.level, success.level, sys.excepthook, threading.excepthook = before
    root.setLevel(before[1])  # also empties the caches of the loggers


Written = Callable[[], str]


@pytest.fixture
def configured() -> Callable[..., Written]:
    def configure(form: str, level: str = "info", **options: Any) -> Written:
        stream = io.StringIO()
        log_format.configure(form, level, stream=stream, **options)
        return stream.getvalue

    return configure


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_readable_line_names_the_worker_only_with_several_workers(
    configured: Callable[..., Written],
) -> None:
    for worker, expected in ((None, ""), (0, "[supervisor] "), (2, "[worker 2] ")):
        written = configured("readable", worker=worker)
        log.warning("hello %s", "there")
        line = written()
        assert line.endswith(f"{expected}WARNING latentserve_server.test: hello there\n"), line
        assert ("[" in line) == bool(expected)


@pytest.mark.parametrize(("worker", "number"), [(None, 0), (0, 0), (3, 3)])
def test_every_json_line_parses_and_has_the_worker_number(
    configured: Callable[..., Written], worker: int | None, number: int
) -> None:
    written = configured("json", worker=worker)
    log.info('two\nlines and a "quote"', extra={"model": "tiny", "duration_ms": 1.5})
    try:
        raise ValueError("inside\nout")
    except ValueError:
        log.exception("it failed")
    log.error("not serializable as JSON", extra={"folder": object()})
    plain, failed, odd = objects(written())
    assert plain["message"] == 'two\nlines and a "quote"'
    assert (plain["level"], plain["logger"]) == ("info", "latentserve_server.test")
    assert (plain["model"], plain["duration_ms"]) == ("tiny", 1.5)
    assert plain["time"].endswith("Z")
    assert "exception" not in plain
    assert "ValueError: inside\nout" in failed["exception"]
    assert "Traceback" in failed["exception"]
    assert "object" in odd["folder"]
    assert {line["worker"] for line in (plain, failed, odd)} == {number}


def test_the_level_is_applied_and_a_second_configuration_replaces_the_first(
    configured: Callable[..., Written],
) -> None:
    first = configured("readable", "debug")
    second = configured("json", "warning")
    log.info("quiet")
    log.warning("loud")
    assert first() == ""
    assert [line["message"] for line in objects(second())] == ["loud"]


@pytest.mark.parametrize("level", ["info", "warning"])
@pytest.mark.parametrize("asked", [True, False])
def test_successful_calls_are_logged_if_enabled_at_any_level(
    configured: Callable[..., Written], level: str, asked: bool
) -> None:
    written = configured("json", level, log_requests=asked)
    logging.getLogger(log_format.SUCCESS_LOGGER).info("a successful call")
    assert bool(written()) == asked


def test_warnings_and_uncaught_exceptions_are_logged(
    configured: Callable[..., Written],
) -> None:
    written = configured("json")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        warnings.warn("deprecated", UserWarning, stacklevel=1)
        logging.captureWarnings(False)

    def fail() -> None:
        raise ValueError("in a thread")

    thread = threading.Thread(target=fail, name="test-thread")
    thread.start()
    thread.join()
    try:
        raise ValueError("in the main thread")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    warned, threaded, main = objects(written())
    assert "deprecated" in warned["message"]
    assert "test-thread" in threaded["message"]
    assert "in a thread" in threaded["exception"]
    assert main["level"] == "critical"
    assert "in the main thread" in main["exception"]


def test_quoted_text_cannot_forge_a_log_line(
    configured: Callable[..., Written],
) -> None:
    forged = "2026-01-01 00:00:00,000 INFO    latentserve_server: all is well"
    for ending in ("\n", "\r\n", "\u2028", "\x85", "\x1b[2K"):
        written = configured("readable")
        log.warning("there is no model %s", f"x{ending}{forged}")
        try:
            raise ValueError(f"x{ending}{forged}")
        except ValueError:
            log.exception("it failed")
        first, second, *trace = written().splitlines()
        assert first.endswith(forged)
        assert second.endswith("it failed")
        assert all(line.startswith("    ") and line.isprintable() for line in trace), trace
        assert "ValueError" in trace[-2] + trace[-1]


@pytest.mark.parametrize("form", log_format.FORMATS)
def test_the_length_of_a_message_is_bounded(configured: Callable[..., Written], form: str) -> None:
    written = configured(form)
    log.warning("%s", "x" * 100_000)
    assert len(written()) < log_format.MAX_MESSAGE_CHARS + 200
    assert "(100000 characters)" in written()


def test_loggers_of_lines_that_clients_cause_are_limited(
    configured: Callable[..., Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "latentserve_server.observability.logs.rate_limit.LIMIT", LineLimit(clock=lambda: 0.0)
    )
    written = configured("readable")
    for name in (*LIMITED_LOGGERS, "latentserve_server.repository.loader"):
        for n in range(50):
            logging.getLogger(name).error("failure %d", n)
    assert written().count("failure") == LINES_PER_PERIOD * len(LIMITED_LOGGERS) + 50
