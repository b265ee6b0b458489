"""Model repository: the model versions of a folder, their states, loading and reloading.

A version with an invalid folder is refused with a reason, without an effect on other versions. A
reload loads and warms up new versions while the old ones are served, then replaces each one
atomically.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from latentserve_server.errors import (
    InvalidRequest,
    ModelFolderUnreadable,
    ModelNotFound,
    Unavailable,
)
from latentserve_server.manifest.reader import Manifest
from latentserve_server.repository.folders import FolderScan, scan_folders
from latentserve_server.repository.loader import Loader
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State

log = logging.getLogger(__name__)

_MAX_PASSED_OVER = 20  # log lines of one scan


class Action(enum.Enum):
    """The action of a reload on a version."""

    UNCHANGED = "unchanged"
    LOADED = "loaded"
    REFUSED = "refused"
    REMOVED = "removed"


@dataclass(frozen=True)
class Outcome:
    """The result of a reload for one version; `reason` says why it was refused."""

    name: str
    version: int
    action: Action
    reason: str = ""


class Repository:
    """Finds, loads, reloads and resolves models. Reading is safe from any thread.

    Args:
        root: folder of <name>/<version>/ folders.
        loader: creates model versions from version folders.
        default_model: the model for an empty name; "" for the only model, if there is one.
        max_versions: maximum number of version folders to serve.
        on_change: called with the name of a model whose versions changed, on the loading thread.
        on_outcome: called with each outcome of a reload, on that thread.
        on_failure: called for a reload that found no folder or an empty one, on that thread.
    """

    def __init__(
        self,
        root: Path,
        loader: Loader,
        *,
        default_model: str = "",
        max_versions: int,
        on_change: Callable[[str], None] = lambda name: None,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._root = root
        self._loader = loader
        self._default_model = default_model
        self._max_versions = max_versions
        self._on_change = on_change
        self._on_outcome = on_outcome
        self._on_failure = on_failure
        self._reloading = threading.Lock()
        # Both are replaced, never changed in place, so readers need no lock.
        self._versions: tuple[ModelVersion, ...] = ()
        self._by_name: dict[str, tuple[ModelVersion, ...]] = {}
        self._passed_over: list[str] = []

    def versions(self) -> tuple[ModelVersion, ...]:
        """Return all versions, sorted by name, then from the highest version to the lowest."""
        return self._versions

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all versions that were not refused."""
        return [
            model_version.manifest
            for model_version in self._versions
            if model_version.manifest is not None and model_version.state is not State.REFUSED
        ]

    def is_ready(self, name: str) -> bool:
        """Return whether a model has a version that is ready."""
        return any(model_version.model is not None for model_version in self._by_name.get(name, ()))

    @property
    def default_model(self) -> str:
        """The model for an empty name, or ""."""
        if self._default_model:
            return self._default_model
        return next(iter(self._by_name)) if len(self._by_name) == 1 else ""

    def scan(self) -> None:
        """Find the version folders and read their manifests, without loading the models."""
        self._publish([self._loader.read(*found) for found in self._scan_folders().versions])

    def load_all(self) -> None:
        """Load, check and warm up every version found by `scan`.

        A version that fails is refused. Raises StartupError, which concerns all versions.
        """
        with self._reloading:
            for model_version in self._versions:
                if model_version.state is State.LOADING:
                    self._put(self._loader.load(model_version))

    def reload(self, names: Collection[str] = ()) -> list[Outcome]:
        """Scan the folder again, load new and changed versions; return an outcome per version.

        A version is served until its replacement is ready, and remains if the replacement is
        refused. `names` limits the reload to some models. Blocks until all versions are loaded; one
        reload runs at a time. Raises ModelNotFound for a name without a folder and without a served
        version, and ModelFolderUnreadable for a missing or empty folder, because that is probably
        not a request to remove all models.
        """
        with self._reloading:
            folders, unreadable = self._find_folders()
            served = {
                (model_version.name, model_version.version): model_version
                for model_version in self._versions
            }
            known = {name for name, _ in folders | served}
            for name in names:
                if name not in known:
                    raise self._not_found(f"there is no model {name[:80]!r}")
            keys = [key for key in folders.keys() | served.keys() if not names or key[0] in names]
            # Load replacements before removing the versions that they replace.
            keys.sort(key=lambda key: (key not in folders, key))
            outcomes = [
                self._load_changed(*key, folders[key], served.get(key))
                if key in folders
                else self._keep(served[key], unreadable[key[0]])
                if key[0] in unreadable
                else self._remove(served[key], replaceable=key[0] in {name for name, _ in folders})
                for key in keys
            ]
            outcomes.sort(key=lambda outcome: (outcome.name, outcome.version))
        for outcome in outcomes:
            self._on_outcome(outcome)
            log.info(
                "reload: %s version %d %s", outcome.name, outcome.version, outcome.action.value
            )
        return outcomes

    def resolve(self, name: str, version: int) -> LoadedModel:
        """Return the loaded model for a ModelRef.

        Raises InvalidRequest, ModelNotFound, or Unavailable while the version is loading.
        """
        found = self.find(name, version)
        if found.state is State.LOADING:
            raise Unavailable(
                f"the model {found.name} version {found.version} is loading; try again",
                retry_after_s=1.0,
            )
        if found.model is None:
            raise self._not_found(
                f"the model {found.name} version {found.version} was refused: {found.reason}"
            )
        return found.model

    def find(self, name: str, version: int) -> ModelVersion:
        """Return the version for a ModelRef; version 0 is the highest one that is not refused.

        Raises InvalidRequest or ModelNotFound.
        """
        if version < 0:
            raise InvalidRequest.field(
                "model.version", f"{version} was sent, expected 1 or higher, or 0 for the highest"
            )
        name = name or self.default_model
        if not name:
            raise self._not_found("the request names no model, and the server has no default model")
        model_versions = self._by_name.get(name)
        if model_versions is None:
            raise self._not_found(f"there is no model {name[:80]!r}")
        if version:
            for model_version in model_versions:
                if model_version.version == version:
                    return model_version
            versions = ", ".join(str(model_version.version) for model_version in model_versions)
            raise self._not_found(f"{name} has no version {version}; it has {versions}")
        for state in (State.READY, State.LOADING):
            for model_version in model_versions:
                if model_version.state is state:
                    return model_version
        raise self._not_found(f"every version of {name} was refused: {model_versions[0].reason}")

    def close(self, *, timeout_s: float) -> None:
        """Run the queued requests and end the threads of all engines."""
        for model_version in self.versions():
            if model_version.model is not None:
                model_version.model.batcher.close(timeout_s=timeout_s)

    def _find_folders(self) -> tuple[dict[tuple[str, int], Path], dict[str, str]]:
        """Return the version folders, and why folders of models cannot be read.

        Raises ModelFolderUnreadable.
        """
        path, problem = self._root, "it is empty"
        try:
            scan = self._scan_folders()
        except OSError as error:
            scan = FolderScan()
            path, problem = Path(error.filename or self._root), error.strerror or "unknown error"
        # After a volume was unmounted, its empty mount point remains.
        empty = not scan.versions and not scan.unreadable
        if empty and any(model_version.model is not None for model_version in self._versions):
            log.error("reload: %s cannot be used: %s; no version was removed", path, problem)
            self._on_failure()
            raise ModelFolderUnreadable(
                f"the model folder cannot be used: {problem}. All versions are served as before; "
                "the server's log has the path"
            )
        return {found[:2]: found[2] for found in scan.versions}, scan.unreadable

    def _scan_folders(self) -> FolderScan:
        """Scan the folder; log what is passed over, but not what the last scan passed over."""
        scan = scan_folders(self._root)
        new = [text for text in scan.passed_over if text not in self._passed_over]
        for text in new[:_MAX_PASSED_OVER]:
            log.warning("%s", text)
        if excess := len(new[_MAX_PASSED_OVER:]):
            log.warning("%d more folders are passed over", excess)
        self._passed_over = scan.passed_over
        if excess_versions := scan.versions[self._max_versions :]:
            name, version, _ = excess_versions[0]
            log.error(
                "at most %d versions are served; %s version %d and all after it are ignored",
                self._max_versions,
                name,
                version,
            )
        return replace(scan, versions=scan.versions[: self._max_versions])

    def _load_changed(
        self, name: str, version: int, folder: Path, served: ModelVersion | None
    ) -> Outcome:
        """Load a new or changed version; keep the served one if the new one is refused."""
        ready = served if served is not None and served.model is not None else None
        # Check the files even if the manifest is unchanged, because a restart would need them.
        model_version = self._loader.read(name, version, folder)
        if (
            ready
            and model_version.state is State.LOADING
            and _digest(model_version) == _digest(ready)
        ):
            if ready.reason:
                self._put(replace(ready, reason=""))  # a refused replacement was removed
            return Outcome(name, version, Action.UNCHANGED)
        if model_version.state is State.LOADING:
            if ready is None:
                self._put(model_version)
            model_version = self._loader.load(model_version)
        if model_version.state is State.REFUSED:
            self._put(replace(ready, reason=model_version.reason) if ready else model_version)
            return Outcome(name, version, Action.REFUSED, model_version.reason)
        self._put(model_version)
        return Outcome(name, version, Action.LOADED)

    def _keep(self, kept: ModelVersion, problem: str) -> Outcome:
        """Keep a version whose model folder cannot be read, because it may still be there."""
        reason = f"the folder of its model cannot be read: {problem}"
        self._put(replace(kept, reason=reason))
        return Outcome(kept.name, kept.version, Action.REFUSED, reason)

    def _remove(self, removed: ModelVersion, *, replaceable: bool) -> Outcome:
        """Stop serving a version, unless all other versions of its model were refused."""
        others = [model_version for model_version in self._versions if model_version is not removed]
        replaced = any(other.name == removed.name and other.model is not None for other in others)
        if removed.model is not None and replaceable and not replaced:
            reason = "its folder was removed, but no other version can be served; it remains"
            log.error("%s version %d: %s", removed.name, removed.version, reason)
            self._put(replace(removed, reason=reason))
            return Outcome(removed.name, removed.version, Action.REFUSED, reason)
        self._publish(others)
        self._on_change(removed.name)
        return Outcome(removed.name, removed.version, Action.REMOVED)

    def _put(self, model_version: ModelVersion) -> None:
        """Add a version, or replace the one with the same name and version."""
        others = [
            other
            for other in self._versions
            if (other.name, other.version) != (model_version.name, model_version.version)
        ]
        self._publish([*others, model_version])
        self._on_change(model_version.name)

    def _publish(self, model_versions: list[ModelVersion]) -> None:
        ordered = sorted(
            model_versions, key=lambda model_version: (model_version.name, -model_version.version)
        )
        by_name: dict[str, tuple[ModelVersion, ...]] = {}
        for model_version in ordered:
            by_name[model_version.name] = (*by_name.get(model_version.name, ()), model_version)
        self._versions, self._by_name = tuple(ordered), by_name

    def _not_found(self, message: str) -> ModelNotFound:
        names = ", ".join(sorted({e.name for e in self._versions if e.state is not State.REFUSED}))
        return ModelNotFound(f"{message}. Models: {names or 'none'}", metadata={"models": names})


def _digest(model_version: ModelVersion) -> str | None:
    return model_version.manifest.digest if model_version.manifest else None
