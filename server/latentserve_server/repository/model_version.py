"""Model version: its state, manifest and loaded model."""

from __future__ import annotations

import enum
import weakref
from dataclasses import dataclass

from latentserve_server.batching.batcher import Batcher
from latentserve_server.manifest.reader import Manifest
from latentserve_server.sampling.prior import Prior

_MAX_FLOAT32 = 3.4028234663852886e38


class State(enum.Enum):
    """The state of a model version."""

    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"


class LoadedModel:
    """A loaded and warmed-up version that serves calls.

    Each call holds a reference to its model. After a version was replaced or removed, its engine
    ends when the last call releases it. So a replacement fails no call, not even a long stream.
    """

    def __init__(
        self, manifest: Manifest, provider: str, batcher: Batcher, prior: Prior | None
    ) -> None:
        self.manifest = manifest
        self.provider = provider
        self.prior = prior
        self.batcher = batcher
        largest = _MAX_FLOAT32 if prior is None else min(prior.largest_latent, _MAX_FLOAT32)
        self.latent_range = (-largest, largest)
        # The serialised ServedBy message by its field number in the reply.
        self.served_by: dict[int, bytes] = {}
        weakref.finalize(self, batcher.shutdown).atexit = False


@dataclass(frozen=True)
class ModelVersion:
    """One version; `reason` says why it, or a newer state of its folder, was refused.

    `description` is the serialised description of the manifest for clients. `max_batch_rows` is the
    limit for the version. Both are set before it is loaded; empty and 0 without a manifest.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    manifest: Manifest | None = None
    model: LoadedModel | None = None
    description: bytes = b""
    max_batch_rows: int = 0
