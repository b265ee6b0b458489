"""Codec jobs that a task awaits; `transport.codec_pool` runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from latentserve_server.transport.aio.in_flight import CallInFlight
from latentserve_server.transport.flow_control.codec_pool import CodecJob

T = TypeVar("T")


async def run_codec_job(
    submit: Callable[[CodecJob], None],
    kind: str,
    work: Callable[[], T],
    nbytes: int,
    call: CallInFlight,
    late: Callable[[T], object] = lambda _: None,
) -> T:
    """Return the result of a codec job, and cancel it when the task is cancelled.

    `late` gets a result that comes after that. Raises the error of `submit` or `work`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    call.waiting = future

    def run() -> None:  # on a codec thread
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised where the job is awaited
            fail(error)
        else:
            loop.call_soon_threadsafe(resolve, result)

    def resolve(result: T) -> None:
        if future.done():
            late(result)
        else:
            future.set_result(result)

    def fail(error: Exception) -> None:
        loop.call_soon_threadsafe(reject, error)

    def reject(error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

    job = CodecJob(kind, run, fail, nbytes, call.deadline)
    submit(job)
    try:
        return await future
    except BaseException:
        job.cancel()
        raise
