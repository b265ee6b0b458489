"""Queue in front of the codec threads: limits, forecast, cancellation, deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from latentserve_server.codec.interruption import check_needed
from latentserve_server.errors import DeadlineExceeded, QueueFull
from latentserve_server.transport.flow_control.codec_pool import CodecJob, CodecPool, kind_of


class ManualExecutor(Executor):
    """Runs its work when it is told to."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.work.append(work)
        return Future()

    def run_all(self) -> None:
        while self.work:
            self.work.pop(0)()


class Bench:
    def __init__(self, max_bytes: int = 100) -> None:
        self.executor = ManualExecutor()
        self.refused: list[str] = []
        self.pool = CodecPool(self.executor, max_bytes, self.refused.append)
        self.ran: list[int] = []
        self.errors: list[Exception] = []

    def job(
        self, nbytes: int, deadline: float | None = None, run: Callable[[], object] | None = None
    ) -> CodecJob:
        work = run or (lambda: self.ran.append(nbytes))
        return CodecJob("files", work, self.errors.append, nbytes, deadline)


def test_requests_over_the_limit_are_refused_until_others_have_run() -> None:
    bench = Bench(max_bytes=100)
    bench.pool.submit_request(bench.job(60))
    with pytest.raises(QueueFull, match="60 bytes wait, the request has 50") as caught:
        bench.pool.submit_request(bench.job(50))
    assert caught.value.retry_after_s is not None
    assert bench.refused == ["full"]
    bench.executor.run_all()
    assert bench.pool.nbytes == 0
    bench.pool.submit_request(bench.job(5000))  # alone, any request is accepted
    bench.executor.run_all()
    assert bench.ran == [60, 5000]


def test_a_cancelled_job_releases_its_bytes_at_once_and_never_runs() -> None:
    bench = Bench(max_bytes=100)
    job = bench.job(90)
    bench.pool.submit_request(job)
    job.cancel()
    assert bench.pool.nbytes == 0
    assert job.run is None
    bench.pool.submit_request(bench.job(80))
    bench.executor.run_all()
    assert bench.ran == [80]
    assert not bench.errors


def test_an_expired_job_fails_and_does_not_run() -> None:
    bench = Bench()
    bench.pool.submit_request(bench.job(1, time.monotonic() + 0.01))
    time.sleep(0.02)
    bench.executor.run_all()
    assert not bench.ran
    (error,) = bench.errors
    assert isinstance(error, DeadlineExceeded)


def test_a_request_whose_deadline_would_pass_while_it_waits_is_refused() -> None:
    bench = Bench(max_bytes=10**9)
    bench.pool.submit_request(bench.job(1, run=lambda: time.sleep(0.02)))
    bench.executor.run_all()
    bench.pool.submit_request(bench.job(10_000))  # about 200 s of work
    with pytest.raises(DeadlineExceeded, match="the expected wait until the request is decoded"):
        bench.pool.submit_request(bench.job(1, time.monotonic() + 10))
    assert bench.refused == ["deadline"]
    bench.pool.submit_request(bench.job(1, time.monotonic() + 10_000))


def test_a_reply_is_never_refused() -> None:
    bench = Bench(max_bytes=1)
    bench.pool.submit_request(bench.job(1))
    for _ in range(3):
        bench.pool.submit_reply(bench.job(1000))
    bench.executor.run_all()
    assert bench.ran == [1, 1000, 1000, 1000]


def test_a_cancelled_job_ends_between_two_files() -> None:
    bench = Bench()
    read = []

    def run() -> None:
        for file in range(10):
            check_needed()
            read.append(file)
            if file == 2:
                job.cancel()

    job = bench.job(1, run=run)
    bench.pool.submit_request(job)
    bench.executor.run_all()
    assert read == [0, 1, 2]
    check_needed()  # other work of this thread is not affected


@pytest.mark.parametrize(
    ("request_bytes", "kind"),
    [
        (b"\x89PNG" + bytes(100), ""),
        (b"head\x89PNG" + bytes(20_000), "files"),
        (b"head\xff\xd8\xff" + bytes(20_000), "files"),
        (bytes(20_000), ""),
        (bytes(300_000), "tensor"),
    ],
)
def test_large_requests_and_image_files_are_decoded_on_other_threads(
    request_bytes: bytes, kind: str
) -> None:
    assert kind_of(request_bytes) == kind
