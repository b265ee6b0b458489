"""What gRPC's core has to be told before it is loaded: it reads its environment just once."""

from __future__ import annotations

import importlib.metadata
from collections.abc import MutableMapping

VARIABLE = "GRPC_EXPERIMENTS"

# The thread that polls a completion queue reads and writes the sockets itself, as it did until
# gRPC moved that to a pool of threads. A call then costs fewer switches of threads:
# benchmarks/transports.py measures both.
_POLLING_THREAD_DOES_IO = "-event_engine_listener"
# Releases that were tried. The switch goes away some day, and core complains about names that
# it does not know.
_TRIED = ("1.85.",)


def prepare(transport: str, environment: MutableMapping[str, str]) -> None:
    """Set up the environment of this process, and of its workers, for a transport.

    What an operator has set stays. Must be called before anything imports grpc.
    """
    if transport != "cq" or VARIABLE in environment:
        return
    if importlib.metadata.version("grpcio").startswith(_TRIED):
        environment[VARIABLE] = _POLLING_THREAD_DOES_IO
