"""What stands between a caller and our services, on a transport of threads and events."""

from __future__ import annotations

from dataclasses import dataclass

from latentserve_server.observability.rpc_recorder import RpcRecorder
from latentserve_server.transport.drain import DrainGate
from latentserve_server.transport.security import TokenGuard


@dataclass(frozen=True)
class Interceptors:
    """What stands between a caller and our own services; health has none."""

    gate: DrainGate
    guard: TokenGuard
    rpc: RpcRecorder
