"""The model folder: which versions there are, which are served, and why others are not.

A version that breaks the contract is refused with its reason and harms no other. A reload loads
and warms up what is new beside what is served, and swaps it in at once or not at all.
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
from latentserve_server.repository.loader import Loader, version_folders
from latentserve_server.repository.model_version import LoadedModel, ModelVersion, State

log = logging.getLogger(__name__)


class Action(enum.Enum):
    """What a reload did with a version."""

    UNCHANGED = "unchanged"
    LOADED = "loaded"
    REFUSED = "refused"
    REMOVED = "removed"


@dataclass(frozen=True)
class Outcome:
    """What became of one version in a reload; `reason` says why it was refused."""

    name: str
    version: int
    action: Action
    reason: str = ""


class Repository:
    """Finds, loads, reloads and resolves models. Reading is safe from any thread.

    Args:
        root: folder of <name>/<version>/ folders.
        loader: makes entries of version folders.
        default_model: what an empty name means; "" for the only model there is.
        max_versions: version folders that are served, at most.
        on_change: called with the name of a model whose versions changed, from the thread that
            loads.
        on_outcome: called with every outcome of a reload, from that thread.
        on_failure: called for a reload that found no folder or an empty one, from that thread.
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
        # Both are replaced as a whole, never changed in place: readers need no lock.
        self._entries: tuple[ModelVersion, ...] = ()
        self._by_name: dict[str, tuple[ModelVersion, ...]] = {}

    def versions(self) -> tuple[ModelVersion, ...]:
        """Return every version, by name, then from high to low."""
        return self._entries

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all versions that were not refused."""
        return [
            entry.manifest
            for entry in self._entries
            if entry.manifest is not None and entry.state is not State.REFUSED
        ]

    def is_ready(self, name: str) -> bool:
        """Return whether a model has a version that answers calls."""
        return any(entry.model is not None for entry in self._by_name.get(name, ()))

    @property
    def default_model(self) -> str:
        """The name that an empty one stands for, or ""."""
        if self._default_model:
            return self._default_model
        return next(iter(self._by_name)) if len(self._by_name) == 1 else ""

    def scan(self) -> None:
        """Find the version folders and read their manifests; nothing is loaded yet."""
        self._publish(
            [self._loader.read(name, version, folder) for name, version, folder in self._folders()]
        )

    def load_all(self) -> None:
        """Load, check and warm up every version found by `scan`.

        A version that fails is refused. StartupError passes through: it concerns all.
        """
        with self._reloading:
            for entry in self._entries:
                if entry.state is State.LOADING:
                    self._put(self._loader.load(entry))

    def reload(self, names: Collection[str] = ()) -> list[Outcome]:
        """Look at the folder again and serve what is new; return an outcome per version.

        What is served stays until its successor is warm, and for good where the successor is
        refused. `names` limits it to some models. Blocks until all is loaded; one reload runs at
        a time. Raises ModelNotFound for a name without a folder and without a served version, and
        ModelFolderUnreadable where it is gone or empty: that is no order to remove everything.
        """
        with self._reloading:
            folders = self._look()
            served = {(entry.name, entry.version): entry for entry in self._entries}
            known = {name for name, _ in folders | served}
            for name in names:
                if name not in known:
                    raise self._not_found(f"there is no model {name[:80]!r}")
            keys = [key for key in folders.keys() | served.keys() if not names or key[0] in names]
            # What takes the place of another one is warm before that goes.
            keys.sort(key=lambda key: (key not in folders, key))
            outcomes = [
                self._renew(*key, folders[key], served.get(key))
                if key in folders
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
        """Return the model that answers a ModelRef.

        Raises InvalidRequest, ModelNotFound, or Unavailable while it is loading.
        """
        entry = self.find(name, version)
        if entry.state is State.LOADING:
            raise Unavailable(
                f"the model {entry.name} version {entry.version} is loading; try again",
                retry_after_s=1.0,
            )
        if entry.model is None:
            raise self._not_found(
                f"the model {entry.name} version {entry.version} was refused: {entry.reason}"
            )
        return entry.model

    def find(self, name: str, version: int) -> ModelVersion:
        """Return the version that a ModelRef names; version 0 skips the refused ones.

        Raises InvalidRequest or ModelNotFound.
        """
        if version < 0:
            raise InvalidRequest.field(
                "model.version", f"{version} was sent, expected 1 or higher, or 0 for the highest"
            )
        name = name or self.default_model
        if not name:
            raise self._not_found("the request names no model and this server has no default one")
        entries = self._by_name.get(name)
        if entries is None:
            raise self._not_found(f"there is no model {name[:80]!r}")
        if version:
            for entry in entries:
                if entry.version == version:
                    return entry
            versions = ", ".join(str(entry.version) for entry in entries)
            raise self._not_found(f"{name} has no version {version}; it has {versions}")
        for state in (State.READY, State.LOADING):
            for entry in entries:
                if entry.state is state:
                    return entry
        raise self._not_found(f"every version of {name} was refused: {entries[0].reason}")

    def close(self, *, timeout_s: float) -> None:
        """Run what waits and end the threads of all engines."""
        for entry in self.versions():
            if entry.model is not None:
                entry.model.batcher.close(timeout_s=timeout_s)

    def _look(self) -> dict[tuple[str, int], Path]:
        """Find the version folders; raises ModelFolderUnreadable."""
        path, problem = self._root, "it is empty"
        try:
            folders = {(name, version): folder for name, version, folder in self._folders()}
        except OSError as error:
            folders = {}
            path, problem = Path(error.filename or self._root), error.strerror or "unknown error"
        # Where a volume was unmounted there is still its mount point, empty.
        if not folders and any(entry.model is not None for entry in self._entries):
            log.error("reload: %s cannot be used: %s; what is served stays", path, problem)
            self._on_failure()
            raise ModelFolderUnreadable(
                f"the model folder cannot be used: {problem}. What was served before still is; "
                "the server's log has the path"
            )
        return folders

    def _folders(self) -> list[tuple[str, int, Path]]:
        folders = version_folders(self._root)
        if left_out := folders[self._max_versions :]:
            name, version, _ = left_out[0]
            log.error(
                "only %d versions are served at most; %s version %d and what follows is not",
                self._max_versions,
                name,
                version,
            )
        return folders[: self._max_versions]

    def _renew(self, name: str, version: int, folder: Path, served: ModelVersion | None) -> Outcome:
        """Load a version that is new or changed; keep what is served where it is refused."""
        ready = served if served is not None and served.model is not None else None
        # Also where the manifest is the same: its files may not be, and a restart would need them.
        entry = self._loader.read(name, version, folder)
        if ready and entry.state is State.LOADING and _digest(entry) == _digest(ready):
            if ready.reason:
                self._put(replace(ready, reason=""))  # a broken successor was taken back
            return Outcome(name, version, Action.UNCHANGED)
        if entry.state is State.LOADING:
            if ready is None:
                self._put(entry)
            entry = self._loader.load(entry)
        if entry.state is State.REFUSED:
            self._put(replace(ready, reason=entry.reason) if ready else entry)
            return Outcome(name, version, Action.REFUSED, entry.reason)
        self._put(entry)
        return Outcome(name, version, Action.LOADED)

    def _remove(self, gone: ModelVersion, *, replaceable: bool) -> Outcome:
        """Serve a version no more, unless what should take its place was refused."""
        others = [entry for entry in self._entries if entry is not gone]
        replaced = any(other.name == gone.name and other.model is not None for other in others)
        if gone.model is not None and replaceable and not replaced:
            reason = "its folder is gone; it stays, because no other version can be served"
            log.error("%s version %d: %s", gone.name, gone.version, reason)
            self._put(replace(gone, reason=reason))
            return Outcome(gone.name, gone.version, Action.REFUSED, reason)
        self._publish(others)
        self._on_change(gone.name)
        return Outcome(gone.name, gone.version, Action.REMOVED)

    def _put(self, entry: ModelVersion) -> None:
        """Swap one entry in."""
        others = [
            other
            for other in self._entries
            if (other.name, other.version) != (entry.name, entry.version)
        ]
        self._publish([*others, entry])
        self._on_change(entry.name)

    def _publish(self, entries: list[ModelVersion]) -> None:
        ordered = sorted(entries, key=lambda entry: (entry.name, -entry.version))
        by_name: dict[str, tuple[ModelVersion, ...]] = {}
        for entry in ordered:
            by_name[entry.name] = (*by_name.get(entry.name, ()), entry)
        self._entries, self._by_name = tuple(ordered), by_name

    def _not_found(self, message: str) -> ModelNotFound:
        names = ", ".join(sorted({e.name for e in self._entries if e.state is not State.REFUSED}))
        return ModelNotFound(f"{message}. Models: {names or 'none'}", metadata={"models": names})


def _digest(entry: ModelVersion) -> str | None:
    return entry.manifest.digest if entry.manifest else None
