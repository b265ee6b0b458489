"""Collects reference replies: each request of the pool, sent once before the load."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from latentserve_client._errors import error_from_rpc
from latentserve_client.load.measure.reply_readers import joined, reader
from latentserve_client.load.measure.validation import ReferenceReply, ReplyReader
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import Workload


def collect_references(
    target: Target,
    workload: Workload,
    tolerance: float,
    timeout_s: float,
    *,
    every: bool,
    readers: Callable[[str], ReplyReader] | None = None,
) -> tuple[ReferenceReply, ...]:
    """Send the requests of the pool one after the other and return their replies.

    Without `every`, sends only the first request of each kind, as a trial, and returns none. Raises
    LatentserveError for a request that fails.
    """
    find_reader = readers or reader
    references: list[ReferenceReply] = []
    tried: set[int] = set()
    with target.channel() as channel:
        for request in workload.pool:
            if not every and request.kind in tried:
                continue
            tried.add(request.kind)
            kind = workload.kinds[request.kind]
            read = find_reader(kind.method)
            options = {"timeout": timeout_s, "metadata": target.metadata or None}
            try:
                if kind.streaming:
                    replies = list(channel.unary_stream(kind.method)(request.payload, **options))
                else:
                    replies = [channel.unary_unary(kind.method)(request.payload, **options)]
            except grpc.RpcError as error:
                raise error_from_rpc(error) from error
            if every:
                parts = joined([read(reply) for reply in replies])
                references.append(ReferenceReply(parts, read, tolerance))
    return tuple(references)
