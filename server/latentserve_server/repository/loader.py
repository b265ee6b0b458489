"""From a version folder to a model that serves: find, check, load, warm up."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from latentserve_server.batching.batcher import Batcher, BatcherCallbacks
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.batching.squared_error import SquaredErrorRunner
from latentserve_server.engine.interface import Engine
from latentserve_server.errors import ManifestError
from latentserve_server.manifest.reader import Manifest, read_manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State
from latentserve_server.sampling.prior import check_golden_samples, read_prior

log = logging.getLogger(__name__)

MAX_VERSION = 2**31 - 1
"""The wire contract's int32."""

_VERSION = re.compile("[1-9][0-9]*")
# The folders of an absolute path, up to its last name.
_FOLDERS = re.compile(r"(?<![\w.~-])/(?:[^\s/:'\"]+/)+")
_CPU_PROVIDER = "CPUExecutionProvider"


class Loader:
    """Makes entries of version folders. A version that breaks the contract is refused.

    Args:
        build_engine: makes the engine of a manifest; raises ManifestError or StartupError.
        limits: gives those of a model by its name.
        budget: what may wait for all models together; None: no limit but their own.
        observer: makes what the batcher of a name and version tells what happens.
        inline_hook: see `Batcher`.
    """

    def __init__(
        self,
        build_engine: Callable[[Manifest], Engine],
        *,
        limits: Callable[[str], Limits],
        queue_quota: QueueQuota | None = None,
        callbacks: Callable[[str, int], BatcherCallbacks] = lambda name, version: (
            BatcherCallbacks()
        ),
        inline_hook: Callable[[Batcher], bool] | None = None,
    ) -> None:
        self._build_engine = build_engine
        self._limits = limits
        self._queue_quota = queue_quota or QueueQuota()
        self._callbacks = callbacks
        self._inline_hook = inline_hook

    def read(self, name: str, version: int, folder: Path) -> ModelVersion:
        """Return the entry of a folder whose manifest and files were checked, not yet loaded."""
        try:
            if _leads_out(folder, folder.parent.parent):
                raise ManifestError("the version's folder is a link that leads out of --exports")
            manifest = read_manifest(folder)
        except ManifestError as error:
            return refused(ModelVersion(name, version, State.LOADING), error, folder)
        max_batch_rows = self._limits(name).max_batch_rows
        return ModelVersion(
            name, version, State.LOADING, manifest=manifest, max_batch_rows=max_batch_rows
        )

    def load(self, entry: ModelVersion) -> ModelVersion:
        """Return a loading entry ready or refused: golden results repeated, batches warmed up."""
        assert entry.manifest is not None  # noqa: S101 - read gives every loading entry one
        limits = self._limits(entry.name)
        if shortage := limits.shortage(_row_bytes(entry.manifest)):
            log.warning("%s version %d: %s", entry.name, entry.version, shortage)
        try:
            prior = read_prior(entry.manifest)
            drawn_difference = check_golden_samples(entry.manifest, prior)
            engine = self._build_engine(entry.manifest)
            difference = max(engine.check_golden(), drawn_difference)
            ran = engine.warm_up((1, limits.max_batch_rows))
        except ManifestError as error:
            return refused(entry, error, entry.manifest.folder)
        batcher = Batcher(
            SquaredErrorRunner(engine),
            name=f"{entry.name}/{entry.version}",
            max_batch_rows=limits.max_batch_rows,
            queue_rows=limits.queue_rows,
            queue_bytes=limits.queue_bytes,
            max_delay_s=limits.max_delay_s,
            queue_quota=self._queue_quota,
            callbacks=self._callbacks(entry.name, entry.version),
            # A GPU may take any time, and a driver may hang: never on the transport's thread.
            inline_hook=self._inline_hook if engine.provider == _CPU_PROVIDER else None,
        )
        for operation, rows, seconds in ran:
            batcher.learn(operation, rows, seconds)
        batcher.start()
        log.info(
            "%s version %d is ready on %s in %s; golden outputs differ by %.1g at most",
            entry.name,
            entry.version,
            engine.provider,
            entry.manifest.precision,
            difference,
        )
        model = LoadedModel(entry.manifest, engine.provider, batcher, prior)
        return replace(entry, state=State.READY, model=model)


def fingerprint(root: Path) -> int:
    """Return a number that changes with any file of any version folder, and with the root."""
    files = []
    try:
        for _, _, folder in version_folders(root):
            if _leads_out(folder, root):
                continue
            for path in folder.iterdir():
                found = path.stat()
                files.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    except OSError as error:  # what cannot be read, or is being deleted, is a change as well
        return hash((error.errno, error.filename))
    return hash(tuple(sorted(files)))


def refused(entry: ModelVersion, error: ManifestError, folder: Path) -> ModelVersion:
    """Return the entry refused, with the reason.

    The log has all of it. Callers are given it without the paths of this machine, of which
    ONNX Runtime's messages are full: `folder` is left out, and of others the last name stays.
    """
    log.error("%s version %d is refused: %s", entry.name, entry.version, error)
    reason = str(error)
    for known in (folder, folder.resolve()):
        reason = reason.replace(f"{known}/", "")
    return replace(entry, state=State.REFUSED, reason=_FOLDERS.sub("", reason))


def _leads_out(folder: Path, root: Path) -> bool:
    """Return whether a link leads out of the root: nothing there is listed or opened."""
    try:
        return not folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return True


def _row_bytes(manifest: Manifest) -> int:
    """Return the bytes of the largest row that can be sent: float32."""
    return max(4 * math.prod(manifest.input_shape(name)) for name in manifest.operations)


def version_folders(root: Path) -> list[tuple[str, int, Path]]:
    """Return (name, version, folder) of all <name>/<version> folders.

    Every model's highest comes first, so that a limit leaves out old ones.
    """
    found = []
    for model in sorted(root.iterdir()):
        if model.name.startswith(".") or not model.is_dir():
            continue
        if _leads_out(model, root):
            log.error("%s is ignored: it is a link that leads out of --exports", model.name)
            continue
        versions = []
        for folder in model.iterdir():
            # Anything else, such as a folder that is still being written, is not a version.
            if not (folder.is_dir() and _VERSION.fullmatch(folder.name)):
                continue
            version = int(folder.name)
            if version > MAX_VERSION:
                log.error(
                    "%s/%s is ignored: versions end at %d", model.name, folder.name, MAX_VERSION
                )
                continue
            versions.append((version, folder))
        versions.sort(reverse=True)
        found += [(age, model.name, *version) for age, version in enumerate(versions)]
    return [(name, version, folder) for _, name, version, folder in sorted(found)]
