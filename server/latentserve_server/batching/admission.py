"""Admission control by deadline, and retry delays for refused requests."""

from __future__ import annotations

from latentserve_server.batching.queue import Batch, RequestQueue
from latentserve_server.batching.quota import QuotaExcess
from latentserve_server.batching.request import NEVER_NS, QueuedRequest
from latentserve_server.batching.service_rate import ServiceRate
from latentserve_server.errors import DeadlineExceeded, QueueFull

_SAFETY_FACTOR = 2.0
"""By what factor an actual wait may be shorter, or an actual run longer, than expected.

The factor favours admission: a wrong refusal fails a request that would have been served, a wrong
admission only costs its client the wait.
"""


class Admission:
    """Estimates waits in one queue. The batcher holds its lock around every call.

    Args:
        name: name of the model, for error messages.
        queue: the queued requests.
        service_rate: the measured durations of batches.
        max_batch_rows: maximum rows of a batch.
        delay_ns: maximum time that a batch waits to be filled.
    """

    def __init__(
        self,
        name: str,
        queue: RequestQueue,
        service_rate: ServiceRate,
        *,
        max_batch_rows: int,
        delay_ns: int,
    ) -> None:
        self._name = name
        self._queue = queue
        self._service_rate = service_rate
        self._max_batch_rows = max_batch_rows
        self._delay_ns = delay_ns

    def check_deadline(
        self, request: QueuedRequest, running: Batch | None, started_ns: int
    ) -> None:
        """Raise DeadlineExceeded if the expected wait is over twice the time to the deadline.

        `running` is the batch that started at `started_ns`, None for an idle engine.
        """
        service_rate, queues, now_ns = self._service_rate, self._queue.queues, request.submitted_ns
        allowed_s = _SAFETY_FACTOR * (request.deadline_ns - now_ns) / 1e9
        rows = self._queue.model_quota.rows
        # An upper bound first, because it is cheap: the running batch, the full batches, and one
        # partly filled batch per operation.
        if (rows // self._max_batch_rows + 1 + len(queues)) * service_rate.slowest_s <= allowed_s:
            return
        wait_s = service_rate.remaining_s(running, (now_ns - started_ns) / 1e9)
        wait_s += service_rate.queue_wait_s(request.operation, queues)
        if wait_s > allowed_s:
            raise DeadlineExceeded(
                f"the deadline is in {allowed_s / _SAFETY_FACTOR:.3g} s, but {rows} rows are "
                f"queued and the expected wait is {wait_s:.3g} s; the model did not run. "
                "Allow more time, or send fewer requests at once"
            )

    def due_ns(self, request: QueuedRequest) -> float:
        """Return when the batch of a request must start: early enough for its deadline."""
        due_ns = request.submitted_ns + self._delay_ns
        if request.deadline_ns == NEVER_NS:
            return due_ns
        slowest_ns = self._service_rate.slowest_s * 1e9
        if not slowest_ns:  # no measurement yet
            return due_ns if request.deadline_ns > due_ns else request.submitted_ns
        latest_ns = request.deadline_ns - _SAFETY_FACTOR * slowest_ns
        return min(due_ns, max(latest_ns, request.submitted_ns))

    def queue_full_error(
        self, excess: QuotaExcess, running: Batch | None, elapsed_s: float
    ) -> QueueFull:
        """Return the error, with a retry delay after which this request is expected to fit.

        `running` is the batch that started `elapsed_s` ago, None for an idle engine.
        """
        model_quota = self._queue.model_quota
        if excess.is_total:
            return excess.error(self._name, model_quota.wait_s(excess))
        if not self._service_rate.slowest_s:
            return excess.error(self._name, None)
        rows = excess.exceeded_by
        if excess.in_bytes and excess.waiting:
            rows = -(-excess.exceeded_by * model_quota.rows // excess.waiting)
        remaining_s = self._service_rate.remaining_s(running, elapsed_s)
        dequeue_s = self._service_rate.dequeue_s(rows, self._queue.queues)
        return excess.error(self._name, remaining_s + dequeue_s)


def deadline_error(dequeued_rows: int = 0, rows: int = 0) -> DeadlineExceeded:
    """Return the error for an expired request, of whose `rows` `dequeued_rows` ran."""
    ran = f"only {dequeued_rows} of {rows} rows ran" if dequeued_rows else "the model did not run"
    return DeadlineExceeded(
        f"the deadline passed while the request waited; {ran}. "
        "Allow more time, or send fewer requests at once"
    )
