"""Before any load of an Open Inference Protocol server: its model, its inputs, one try of each."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from latentserve_client._errors import error_from_rpc
from latentserve_client.load.drive.preparation import PreparedLoad
from latentserve_client.load.drive.references import references
from latentserve_client.load.open_inference import messages_pb2 as pb
from latentserve_client.load.open_inference.tensors import read_infer, request
from latentserve_client.load.plan.config import LoadTestConfig, timeout_s
from latentserve_client.load.plan.mix import BadMix, MixEntry
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind, Request, Workload

_SERVICE = "/inference.GRPCInferenceService/"
_MOST_ROWS = 2**20  # the protocol has no limit of its own: the server says what is too much
_MAX_POOL_BYTES = 256 * 2**20


def prepare_oip(args: argparse.Namespace, plan: LoadTestConfig, target: Target) -> PreparedLoad:
    """Read the metadata, make the requests and try them.

    Raises BadMix for a mix without a model or inputs that cannot be made, LatentserveError for
    what the server refuses or where it is not there.
    """
    limit_s = timeout_s(args)
    entries = [entry if entry.model else replace(entry, model=args.model) for entry in plan.entries]
    kinds: list[CallKind] = []
    pool: list[Request] = []
    lines: dict[str, str] = {}
    with target.channel() as channel:
        for number, entry in enumerate(entries):
            name, version = _model(entry)
            asked = pb.ModelMetadataRequest(name=name, version=version)
            metadata = _ask(
                channel, target, "ModelMetadata", asked, pb.ModelMetadataResponse, limit_s
            )
            if not metadata.inputs:
                raise BadMix(f"the server says of no inputs of {name}: it cannot be loaded")
            lines[f"{name}:{version}"] = _line(metadata)
            label = " ".join(
                ("infer", name + (f":{version}" if version else ""), f"rows={entry.rows.text}")
            )
            kinds.append(CallKind(label, _SERVICE + "ModelInfer", entry.weight))
            pool += _requests(entry, metadata, number, len(pool), args.pool, args.seed)
        lines["server"] = _server(channel, target, limit_s)
    workload = Workload(tuple(kinds), tuple(pool))
    answers = references(
        target,
        workload,
        args.tolerance,
        limit_s,
        every=args.validate > 0,
        readers=lambda _: read_infer,
    )
    return PreparedLoad(workload, answers, tuple(line for line in lines.values() if line))


def _model(entry: MixEntry) -> tuple[str, str]:
    if not entry.model:
        raise BadMix("which model? give --model NAME, or infer:model=NAME in the mix")
    name, _, version = entry.model.partition(":")
    return name, version


def _requests(
    entry: MixEntry, metadata: Any, kind: int, first: int, count: int, seed: int
) -> list[Request]:
    name, version = _model(entry)
    sizes = entry.rows.draw(count, _MOST_ROWS, np.random.default_rng((seed, kind)))
    requests: list[Request] = []
    used = 0
    for position, rows in enumerate(sizes):
        payload = request(name, version, metadata.inputs, rows, seed + position).SerializeToString()
        used += len(payload)
        if used > _MAX_POOL_BYTES and position:
            break
        requests.append(Request(first + position, kind, payload, rows))
    return requests


def _ask(
    channel: grpc.Channel, target: Target, method: str, message: Any, reply: Any, limit_s: float
) -> Any:
    call = channel.unary_unary(
        _SERVICE + method,
        request_serializer=type(message).SerializeToString,
        response_deserializer=reply.FromString,
    )
    try:
        return call(message, timeout=limit_s, metadata=target.metadata or None)
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error


def _server(channel: grpc.Channel, target: Target, limit_s: float) -> str:
    asked = pb.ServerMetadataRequest()
    found = _ask(channel, target, "ServerMetadata", asked, pb.ServerMetadataResponse, limit_s)
    return f"served by {found.name} {found.version}".rstrip()


def _line(metadata: Any) -> str:
    inputs = ", ".join(
        f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in metadata.inputs
    )
    platform = f"{metadata.platform}, " if metadata.platform else ""
    return f"{metadata.name} ({platform}{inputs})"
