"""Model loader: finds, checks, loads and warms up version folders."""

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
"""The maximum of int32, the type in the protocol."""

_VERSION = re.compile("[1-9][0-9]*")
# The folders of an absolute path, without its last component.
_FOLDERS = re.compile(r"(?<![\w.~-])/(?:[^\s/:'\"]+/)+")
_CPU_PROVIDER = "CPUExecutionProvider"


class Loader:
    """Creates model versions from version folders. An invalid version is refused.

    Args:
        build_engine: creates the engine of a manifest; raises ManifestError or StartupError.
        limits: returns the limits of a model by its name.
        queue_quota: the total quota of all models; None: only the quota of each model.
        callbacks: creates the batcher's callbacks for a name and version.
        inline_hook: see `Batcher`; used only for engines on the CPU.
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
        """Return the version of a folder after a check of its manifest and files, not loaded."""
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

    def load(self, model_version: ModelVersion) -> ModelVersion:
        """Check the golden results and warm up; return the version as ready or refused."""
        assert model_version.manifest is not None  # noqa: S101 - set by `read` for every loading version
        limits = self._limits(model_version.name)
        if shortage := limits.shortage(_row_bytes(model_version.manifest)):
            log.warning("%s version %d: %s", model_version.name, model_version.version, shortage)
        try:
            prior = read_prior(model_version.manifest)
            sample_difference = check_golden_samples(model_version.manifest, prior)
            engine = self._build_engine(model_version.manifest)
            difference = max(engine.check_golden(), sample_difference)
            measurements = engine.warm_up((1, limits.max_batch_rows))
        except ManifestError as error:
            return refused(model_version, error, model_version.manifest.folder)
        batcher = Batcher(
            SquaredErrorRunner(engine),
            name=f"{model_version.name}/{model_version.version}",
            max_batch_rows=limits.max_batch_rows,
            queue_rows=limits.queue_rows,
            queue_bytes=limits.queue_bytes,
            max_delay_s=limits.max_delay_s,
            queue_quota=self._queue_quota,
            callbacks=self._callbacks(model_version.name, model_version.version),
            # A GPU may be slow and its driver may hang, so it never runs on the polling thread.
            inline_hook=self._inline_hook if engine.provider == _CPU_PROVIDER else None,
        )
        for operation, rows, seconds in measurements:
            batcher.learn(operation, rows, seconds)
        batcher.start()
        log.info(
            "%s version %d is ready on %s in %s; golden outputs differ by at most %.1g",
            model_version.name,
            model_version.version,
            engine.provider,
            model_version.manifest.precision,
            difference,
        )
        model = LoadedModel(model_version.manifest, engine.provider, batcher, prior)
        return replace(model_version, state=State.READY, model=model)


def fingerprint(root: Path) -> int:
    """Return a hash of the paths, times, sizes and inodes of all files of all version folders."""
    files = []
    try:
        for _, _, folder in version_folders(root):
            if _leads_out(folder, root):
                continue
            for path in folder.iterdir():
                found = path.stat()
                files.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    except OSError as error:  # unreadable, or being deleted: that is a change, too
        return hash((error.errno, error.filename))
    return hash(tuple(sorted(files)))


def refused(model_version: ModelVersion, error: ManifestError, folder: Path) -> ModelVersion:
    """Return the version as refused, with the reason.

    The full error goes to the log. The reason is for clients and must not contain paths of this
    machine, which ONNX Runtime's messages often do: `folder` is removed, and other absolute paths
    are reduced to their last component.
    """
    log.error("%s version %d is refused: %s", model_version.name, model_version.version, error)
    reason = str(error)
    for known in (folder, folder.resolve()):
        reason = reason.replace(f"{known}/", "")
    return replace(model_version, state=State.REFUSED, reason=_FOLDERS.sub("", reason))


def _leads_out(folder: Path, root: Path) -> bool:
    """Return whether `folder` is a link out of the root; such folders are not read."""
    try:
        return not folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return True


def _row_bytes(manifest: Manifest) -> int:
    """Return the bytes of the largest row of a request, as float32."""
    return max(4 * math.prod(manifest.input_shape(name)) for name in manifest.operations)


def version_folders(root: Path) -> list[tuple[str, int, Path]]:
    """Return (name, version, folder) of all <name>/<version> folders.

    Sorted by the rank of the version in its model, highest first, so that a limit excludes the
    lowest versions.
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
            # Other names are not versions, for example a folder that is being written.
            if not (folder.is_dir() and _VERSION.fullmatch(folder.name)):
                continue
            version = int(folder.name)
            if version > MAX_VERSION:
                log.error(
                    "%s/%s is ignored: the highest version is %d",
                    *(model.name, folder.name, MAX_VERSION),
                )
                continue
            versions.append((version, folder))
        versions.sort(reverse=True)
        found += [(rank, model.name, *version) for rank, version in enumerate(versions)]
    return [(name, version, folder) for _, name, version, folder in sorted(found)]
