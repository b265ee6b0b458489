"""Preparation for a server of the Open Inference Protocol: metadata, requests, trial."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from latentserve_client._errors import error_from_rpc
from latentserve_client.load.drive.preparation import PreparedLoad
from latentserve_client.load.drive.references import collect_references
from latentserve_client.load.open_inference import messages_pb2 as pb
from latentserve_client.load.open_inference.tensors import read_infer, request
from latentserve_client.load.plan.config import LoadTestConfig, call_timeout_s
from latentserve_client.load.plan.mix import BadMix, MixEntry
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import CallKind, Request, Workload

_SERVICE = "/inference.GRPCInferenceService/"
_MAX_ROWS = 2**20  # the protocol has no limit; the server refuses larger requests
_MAX_POOL_BYTES = 256 * 2**20


def prepare_oip(args: argparse.Namespace, config: LoadTestConfig, target: Target) -> PreparedLoad:
    """Read the metadata of the models, build the requests and try them.

    Raises BadMix for a mix without a model or inputs of an unsupported data type,
    LatentserveError for a request that fails or a server that is unavailable.
    """
    limit_s = call_timeout_s(args)
    entries = [
        entry if entry.model else replace(entry, model=args.model) for entry in config.entries
    ]
    kinds: list[CallKind] = []
    pool: list[Request] = []
    lines: dict[str, str] = {}
    with target.channel() as channel:
        for number, entry in enumerate(entries):
            name, version = _model(entry)
            query = pb.ModelMetadataRequest(name=name, version=version)
            metadata = _query(
                channel, target, "ModelMetadata", query, pb.ModelMetadataResponse, limit_s
            )
            if not metadata.inputs:
                raise BadMix(
                    f"the metadata of {name} lists no inputs: the load tester cannot build requests"
                )
            lines[f"{name}:{version}"] = _model_line(metadata)
            label = " ".join(
                ("infer", name + (f":{version}" if version else ""), f"rows={entry.rows.text}")
            )
            kinds.append(CallKind(label, _SERVICE + "ModelInfer", entry.weight))
            pool += _requests(entry, metadata, number, len(pool), args.pool, args.seed)
        lines["server"] = _server_line(channel, target, limit_s)
    workload = Workload(tuple(kinds), tuple(pool))
    references = collect_references(
        target,
        workload,
        args.tolerance,
        limit_s,
        every=args.validate > 0,
        readers=lambda _: read_infer,
    )
    return PreparedLoad(workload, references, tuple(line for line in lines.values() if line))


def _model(entry: MixEntry) -> tuple[str, str]:
    if not entry.model:
        raise BadMix("no model given: use --model NAME, or infer:model=NAME in the mix")
    name, _, version = entry.model.partition(":")
    return name, version


def _requests(
    entry: MixEntry, metadata: Any, kind: int, first: int, count: int, seed: int
) -> list[Request]:
    name, version = _model(entry)
    sizes = entry.rows.sample(count, _MAX_ROWS, np.random.default_rng((seed, kind)))
    requests: list[Request] = []
    used = 0
    for position, rows in enumerate(sizes):
        payload = request(name, version, metadata.inputs, rows, seed + position).SerializeToString()
        used += len(payload)
        if used > _MAX_POOL_BYTES and position:
            break
        requests.append(Request(first + position, kind, payload, rows))
    return requests


def _query(
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


def _server_line(channel: grpc.Channel, target: Target, limit_s: float) -> str:
    query = pb.ServerMetadataRequest()
    found = _query(channel, target, "ServerMetadata", query, pb.ServerMetadataResponse, limit_s)
    return f"served by {found.name} {found.version}".rstrip()


def _model_line(metadata: Any) -> str:
    inputs = ", ".join(
        f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in metadata.inputs
    )
    platform = f"{metadata.platform}, " if metadata.platform else ""
    return f"{metadata.name} ({platform}{inputs})"
