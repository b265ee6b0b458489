"""What the repository knows of one version folder."""

from __future__ import annotations

import enum
import weakref
from dataclasses import dataclass

from latentserve_server.batching.batcher import Batcher
from latentserve_server.manifest.reader import Manifest
from latentserve_server.sampling.prior import Prior


class State(enum.Enum):
    """Whether a version can be used."""

    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"


class LoadedModel:
    """A version that is warm and answers calls.

    Every call holds the model that it began with. When a version is replaced or removed, its
    engine ends with the last call that holds it: a swap fails nobody, a long stream included.
    """

    def __init__(
        self, manifest: Manifest, provider: str, batcher: Batcher, prior: Prior | None
    ) -> None:
        self.manifest = manifest
        self.provider = provider
        self.prior = prior
        self.batcher = batcher
        # What a reply says of its model, serialised once; by the number of the reply's field.
        self.served_by: dict[int, bytes] = {}
        weakref.finalize(self, batcher.shutdown).atexit = False


@dataclass(frozen=True)
class ModelVersion:
    """One version; `reason` says why it, or a newer state of its folder, was refused.

    `max_batch_rows` is what it has, or would have once loaded; 0 without a manifest.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    manifest: Manifest | None = None
    model: LoadedModel | None = None
    max_batch_rows: int = 0
