"""Drain gate, token guard and recorder that every call to the services passes."""

from __future__ import annotations

from dataclasses import dataclass

from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.transport.drain import DrainGate
from latentserve_server.transport.security import TokenGuard


@dataclass(frozen=True)
class Interceptors:
    """The parts that a call to a service passes first; health and reflection have none."""

    gate: DrainGate
    guard: TokenGuard
    rpc: RpcRecorder
