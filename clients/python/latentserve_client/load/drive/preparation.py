"""Before any load: the server is there, its models fit the mix, each kind of request works."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from latentserve_client._base import DEFAULT_MAX_MESSAGE_BYTES
from latentserve_client._client import Client
from latentserve_client._models import Model
from latentserve_client.load.drive.references import references as collect
from latentserve_client.load.measure.validation import ReferenceReply
from latentserve_client.load.plan import requests
from latentserve_client.load.plan.config import LoadTestConfig, timeout_s
from latentserve_client.load.plan.inputs import ImageSource
from latentserve_client.load.plan.mix import PLAIN_CALLS
from latentserve_client.load.plan.target import Target
from latentserve_client.load.plan.workload import Workload

_NO_MODEL = frozenset(PLAIN_CALLS) - {"model"}


@dataclass(frozen=True)
class PreparedLoad:
    """What is known once everything was tried."""

    workload: Workload
    references: tuple[ReferenceReply, ...]  # empty where nothing is validated
    models: tuple[str, ...]  # one line each, for the report


def prepare(
    args: argparse.Namespace, plan: LoadTestConfig, target: Target, images: ImageSource
) -> PreparedLoad:
    """Look up, build and try the requests.

    Raises BadMix for what the models cannot do, LatentserveError for what the server refuses or
    where it is not there.
    """
    entries = tuple(
        entry if entry.model or entry.call in _NO_MODEL else replace(entry, model=args.model)
        for entry in plan.entries
    )
    client = Client(
        args.server,
        timeout_s=timeout_s(args),
        max_message_bytes=DEFAULT_MAX_MESSAGE_BYTES,
        credentials=target.credentials(),
        metadata=target.metadata,
    )
    with client:
        models = requests.look_up(client, entries)
        if not any(models):
            client.models()  # is it one of ours at all?
    workload = requests.build(entries, models, images, pool=args.pool, seed=args.seed)
    references = collect(target, workload, args.tolerance, timeout_s(args), every=args.validate > 0)
    return PreparedLoad(workload, references, _lines(models))


def _lines(models: tuple[Model | None, ...]) -> tuple[str, ...]:
    known = {model.ref: model for model in models if model is not None}
    return tuple(
        f"{ref} ({model.kind}, {model.provider}, digest {model.digest[:12]})"
        for ref, model in sorted(known.items())
    )
