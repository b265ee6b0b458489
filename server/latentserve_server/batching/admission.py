"""Who may wait, by the measured rate, and what those are told who may not."""

from __future__ import annotations

from latentserve_server.batching.queue import Batch, RequestQueue
from latentserve_server.batching.quota import QuotaExcess
from latentserve_server.batching.request import NEVER_NS, QueuedRequest
from latentserve_server.batching.service_rate import ServiceRate
from latentserve_server.errors import DeadlineExceeded, QueueFull

_DOUBT = 2.0
"""How much shorter than forecast a wait may turn out, and how much longer a run.

A caller who is refused wrongly is harmed; one who is admitted wrongly only waits in vain.
"""


class Admission:
    """Forecasts for one queue. The batcher's lock is held around every call.

    Args:
        name: of the model, for the refused.
        queue: what waits.
        drain: what was measured.
        max_batch_rows: rows of one batch, at most.
        delay_ns: how long a batch may wait to be filled.
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

    def check_deadline(self, request: QueuedRequest, running: Batch | None, cut_ns: int) -> None:
        """Raise DeadlineExceeded where the wait will be longer, by far, than there is time.

        `running` is the batch that was cut at `cut_ns`, None for an idle engine.
        """
        service_rate, queues, now_ns = self._service_rate, self._queue.queues, request.submitted_ns
        left_s = _DOUBT * (request.deadline_ns - now_ns) / 1e9
        rows = self._queue.model_quota.rows
        # First what it cannot be longer than: the running batch, the full ones, the last of each.
        if (rows // self._max_batch_rows + 1 + len(queues)) * service_rate.slowest_s <= left_s:
            return
        wait_s = service_rate.rest_s(running, (now_ns - cut_ns) / 1e9)
        wait_s += service_rate.ahead_s(request.operation, queues)
        if wait_s > left_s:
            raise DeadlineExceeded(
                f"the deadline is in {left_s / _DOUBT:.3g} s and {rows} rows wait already, for "
                f"about {wait_s:.3g} s; the model did not run. "
                "Allow more time, or send fewer requests at once"
            )

    def due_ns(self, request: QueuedRequest) -> float:
        """Return when a request's batch must go: in time for its deadline, at once if need be."""
        due_ns = request.submitted_ns + self._delay_ns
        if request.deadline_ns == NEVER_NS:
            return due_ns
        slowest_ns = self._service_rate.slowest_s * 1e9
        if not slowest_ns:  # nobody knows how long it will run
            return due_ns if request.deadline_ns > due_ns else request.submitted_ns
        return min(due_ns, max(request.deadline_ns - _DOUBT * slowest_ns, request.submitted_ns))

    def full(self, excess: QuotaExcess, running: Batch | None, elapsed_s: float) -> QueueFull:
        """Return the error, with the time until this request, not all that waits, has its place.

        `running` began `elapsed_s` ago.
        """
        model_quota = self._queue.model_quota
        if excess.of_all:
            return excess.error(self._name, model_quota.wait_s(excess))
        if not self._service_rate.slowest_s:
            return excess.error(self._name, None)
        rows = excess.over
        if excess.in_bytes and excess.waiting:
            rows = -(-excess.over * model_quota.rows // excess.waiting)
        rest_s = self._service_rate.rest_s(running, elapsed_s)
        return excess.error(
            self._name, rest_s + self._service_rate.leave_s(rows, self._queue.queues)
        )


def too_late(cut_rows: int = 0, rows: int = 0) -> DeadlineExceeded:
    """Return the error for a request that waited too long; `cut_rows` of its `rows` ran."""
    ran = f"only {cut_rows} of {rows} rows ran" if cut_rows else "the model did not run"
    return DeadlineExceeded(
        f"the deadline passed while the request waited; {ran}. "
        "Allow more time, or send fewer requests at once"
    )
