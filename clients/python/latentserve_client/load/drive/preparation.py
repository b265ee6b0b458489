"""Preparation before the load: looks up the models, builds and tries the requests."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from latentserve_client._base import DEFAULT_MAX_MESSAGE_BYTES
from latentserve_client._client import Client
from latentserve_client._models import Model
from latentserve_client.load.drive.references import collect_references
from latentserve_client.load.measure.validation import ReferenceReply
from latentserve_client.load.plan import requests
from latentserve_client.load.plan.config import LoadTestConfig, call_timeout_s
from latentserve_client.load.plan.inputs import ImageSource
from latentserve_client.load.plan.mix import PLAIN_CALLS
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import Workload

_NO_MODEL = frozenset(PLAIN_CALLS) - {"model"}


@dataclass(frozen=True)
class PreparedLoad:
    """Workload, reference replies and models of a prepared load test."""

    workload: Workload
    references: tuple[ReferenceReply, ...]  # empty: no validation
    models: tuple[str, ...]  # one line per model, for the report


def prepare(
    args: argparse.Namespace, config: LoadTestConfig, target: Target, images: ImageSource
) -> PreparedLoad:
    """Build the requests of the latentserve API and send each kind once.

    Raises BadMix for calls that the models do not support, LatentserveError for a request that
    fails or a server that is unavailable.
    """
    entries = tuple(
        entry if entry.model or entry.call in _NO_MODEL else replace(entry, model=args.model)
        for entry in config.entries
    )
    client = Client(
        args.server,
        timeout_s=call_timeout_s(args),
        max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        credentials=target.credentials(),
        metadata=target.metadata,
    )
    with client:
        models = requests.look_up(client, entries)
        if not any(models):
            client.models()  # raises if the server is not a latentserve server
    workload = requests.build(entries, models, images, pool=args.pool, seed=args.seed)
    references = collect_references(
        target, workload, args.tolerance, call_timeout_s(args), every=args.validate > 0
    )
    return PreparedLoad(workload, references, _model_lines(models))


def _model_lines(models: tuple[Model | None, ...]) -> tuple[str, ...]:
    known = {model.ref: model for model in models if model is not None}
    return tuple(
        f"{ref} ({model.kind}, {model.provider}, digest {model.digest[:12]})"
        for ref, model in sorted(known.items())
    )
