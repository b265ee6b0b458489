"""Checks and records that every call to the services passes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.transport.flow_control.drain import DrainGate
from latentserve_server.transport.flow_control.reply_quota import ReplyQuota
from latentserve_server.transport.security import TokenGuard


@dataclass(frozen=True)
class Interceptors:
    """The parts that a call to a service passes first; health and reflection have none.

    `max_call_s` is the longest duration of a call without a deadline; None for no limit.
    """

    gate: DrainGate
    guard: TokenGuard
    rpc: RpcRecorder
    replies: ReplyQuota = field(default_factory=ReplyQuota)
    max_call_s: float | None = None

    def latest_end_s(self) -> float | None:
        """Return the deadline of a call that begins now and has none, on the monotonic clock."""
        return None if self.max_call_s is None else time.monotonic() + self.max_call_s
