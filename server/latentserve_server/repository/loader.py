"""Model loader: checks, loads and warms up version folders."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from latentserve_server.batching.batcher import Batcher, BatcherCallbacks
from latentserve_server.batching.quota import QueueQuota
from latentserve_server.engine.interface import Engine
from latentserve_server.engine.squared_error import SquaredErrorRunner
from latentserve_server.errors import ManifestError, StartupError
from latentserve_server.manifest.reader import Manifest, read_manifest
from latentserve_server.model_limits import Limits
from latentserve_server.repository.folders import leads_out
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State
from latentserve_server.sampling.prior import check_golden_samples, read_prior

log = logging.getLogger(__name__)

# The folders of an absolute path, without its last component.
_FOLDERS = re.compile(r"(?<![\w.~-])/(?:[^\s/:'\"]+/)+")
_CPU_PROVIDER = "CPUExecutionProvider"
# ListModels describes all versions in one reply, and clients accept 4 MiB by default.
_MAX_DESCRIPTION_BYTES = 32 * 1024
_MAX_REASON = 2000


class Loader:
    """Creates model versions from version folders. An invalid version is refused.

    Args:
        build_engine: creates the engine of a manifest; raises ManifestError or StartupError.
        limits: returns the limits of a model by its name.
        queue_quota: the total quota of all models; None: only the quota of each model.
        callbacks: creates the batcher's callbacks for a name and version.
        inline_hook: see `Batcher`; used only for engines on the CPU.
        describe: returns the description of a version for clients, serialised. A version that it
            cannot describe is refused.
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
        describe: Callable[[Manifest], bytes] = lambda manifest: b"",
    ) -> None:
        self._build_engine = build_engine
        self._limits = limits
        self._queue_quota = queue_quota or QueueQuota()
        self._callbacks = callbacks
        self._inline_hook = inline_hook
        self._describe = describe

    def read(self, name: str, version: int, folder: Path) -> ModelVersion:
        """Return the version of a folder after a check of its manifest and files, not loaded.

        Whatever exception a folder causes, it refuses only this version.
        """
        model_version = ModelVersion(name, version, State.LOADING)
        try:
            if leads_out(folder, folder.parent.parent):
                raise ManifestError("the version's folder is a link that leads out of --exports")
            manifest = read_manifest(folder)
            description = self._describe(manifest)
            if len(description) > _MAX_DESCRIPTION_BYTES:
                raise ManifestError(
                    f"its description and metrics have {len(description)} bytes in a reply, at "
                    f"most {_MAX_DESCRIPTION_BYTES} are allowed"
                )
        except Exception as error:  # noqa: BLE001 - see the docstring
            return refused(model_version, error, folder)
        max_batch_rows = self._limits(name).max_batch_rows
        return replace(
            model_version,
            manifest=manifest,
            description=description,
            max_batch_rows=max_batch_rows,
        )

    def load(self, model_version: ModelVersion) -> ModelVersion:
        """Check the golden results and warm up; return the version as ready or refused.

        Whatever exception a version causes, it refuses only this version. Raises StartupError,
        which concerns all versions.
        """
        assert model_version.manifest is not None  # noqa: S101 - set by `read` for every loading version
        log.info("%s version %d is loading", model_version.name, model_version.version)
        try:
            return self._load(model_version, model_version.manifest)
        except StartupError:
            raise
        except Exception as error:  # noqa: BLE001 - see the docstring
            return refused(model_version, error, model_version.manifest.folder)

    def _load(self, model_version: ModelVersion, manifest: Manifest) -> ModelVersion:
        limits = self._limits(model_version.name)
        if shortage := limits.shortage(_row_bytes(manifest)):
            log.warning("%s version %d: %s", model_version.name, model_version.version, shortage)
        prior = read_prior(manifest)
        sample_difference = check_golden_samples(manifest, prior)
        engine = self._build_engine(manifest)
        difference = max(engine.check_golden(), sample_difference)
        measurements = engine.warm_up((1, limits.max_batch_rows))
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
            manifest.precision,
            difference,
        )
        model = LoadedModel(manifest, engine.provider, batcher, prior)
        return replace(model_version, state=State.READY, model=model)


def refused(model_version: ModelVersion, error: Exception, folder: Path) -> ModelVersion:
    """Return the version as refused, with the reason.

    The full error goes to the log, with the stack trace if it was not expected. The reason is for
    clients and must not contain paths of this machine, which ONNX Runtime's messages often do:
    `folder` is removed, and other absolute paths are reduced to their last component.
    """
    expected = isinstance(error, ManifestError)
    reason = str(error) if expected else f"{type(error).__name__}: {error}"
    log.error(
        "%s version %d is refused: %s",
        *(model_version.name, model_version.version, reason),
        exc_info=None if expected else error,
    )
    for known in (folder, folder.resolve()):
        reason = reason.replace(f"{known}/", "")
    # Texts of a model may have half of a surrogate pair, which protobuf refuses.
    reason = _FOLDERS.sub("", reason).encode(errors="backslashreplace").decode()
    return replace(model_version, state=State.REFUSED, reason=reason[:_MAX_REASON])


def _row_bytes(manifest: Manifest) -> int:
    """Return the bytes of the largest row of a request, as float32."""
    return max(4 * math.prod(manifest.input_shape(name)) for name in manifest.operations)
