"""Environment variables for gRPC core, which reads them once, when it is loaded."""

from __future__ import annotations

import importlib.metadata
from collections.abc import MutableMapping

VARIABLE = "GRPC_EXPERIMENTS"

# Without this experiment, the polling thread reads and writes the sockets, not a thread pool of
# gRPC core. A call then needs fewer thread switches; benchmarks/transports.py measures both.
_POLLING_THREAD_DOES_IO = "-event_engine_listener"
# Releases that were tested. A later release may remove the experiment, and gRPC core logs an
# error for unknown names.
_TESTED_RELEASES = ("1.85.",)


def prepare(transport: str, environment: MutableMapping[str, str]) -> None:
    """Set the variables for a transport, in this process and the workers that inherit them.

    A value that the operator has set is kept. Must be called before grpc is imported.
    """
    if transport != "cq" or VARIABLE in environment:
        return
    if importlib.metadata.version("grpcio").startswith(_TESTED_RELEASES):
        environment[VARIABLE] = _POLLING_THREAD_DOES_IO
