"""The model folder: which versions there are, which are served, and why others are not.

A version that breaks the contract is refused with its reason and harms no other.
"""

from __future__ import annotations

import enum
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from latentserve_server.batcher import Batcher, Runner
from latentserve_server.errors import InvalidRequest, ManifestError, ModelNotFound, Unavailable
from latentserve_server.manifest import Manifest, read_manifest

log = logging.getLogger(__name__)


MAX_VERSION = 2**31 - 1
"""The wire contract's int32."""

_VERSION = re.compile("[1-9][0-9]*")


class Engine(Runner, Protocol):
    """What the repository needs of an engine; `engine.OnnxEngine` is the real one."""

    provider: str

    def warm_up(self, batch_rows: Iterable[int]) -> None:
        """Run every operation once for each batch size."""

    def check_golden(self) -> float:
        """Repeat the golden runs; raises ManifestError where they differ too much."""


class State(enum.Enum):
    """Whether a version can be used."""

    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True)
class ServedModel:
    """A version that is warm and answers calls."""

    manifest: Manifest
    provider: str
    batcher: Batcher


@dataclass(frozen=True)
class Entry:
    """One version folder; `reason` says why it was refused."""

    name: str
    version: int
    state: State
    reason: str = ""
    manifest: Manifest | None = None
    model: ServedModel | None = None


class Repository:
    """Finds, loads and resolves models. Reading is safe from any thread.

    Args:
        root: folder of <name>/<version>/ folders.
        build_engine: makes the engine of a manifest; raises ManifestError or StartupError.
        default_model: what an empty name means; "" for the only model there is.
        max_batch_rows: rows of one batch, at most.
        queue_rows: rows that may wait for one model, at most.
        max_versions: version folders that are served, at most.
    """

    def __init__(
        self,
        root: Path,
        build_engine: Callable[[Manifest], Engine],
        *,
        default_model: str = "",
        max_batch_rows: int,
        queue_rows: int,
        max_versions: int,
    ) -> None:
        self._root = root
        self._build_engine = build_engine
        self._default_model = default_model
        self._max_batch_rows = max_batch_rows
        self._queue_rows = queue_rows
        self._max_versions = max_versions
        # Replaced as a whole, never changed in place: readers need no lock.
        self._entries: dict[tuple[str, int], Entry] = {}

    def entries(self) -> list[Entry]:
        """Return every version, by name, then from high to low."""
        return sorted(self._entries.values(), key=lambda entry: (entry.name, -entry.version))

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all versions that were not refused."""
        return [
            entry.manifest
            for entry in self.entries()
            if entry.manifest is not None and entry.state is not State.REFUSED
        ]

    @property
    def default_model(self) -> str:
        """The name that an empty one stands for, or ""."""
        if self._default_model:
            return self._default_model
        names = {entry.name for entry in self._entries.values()}
        return names.pop() if len(names) == 1 else ""

    def scan(self) -> None:
        """Find the version folders and read their manifests; nothing is loaded yet."""
        entries: dict[tuple[str, int], Entry] = {}
        for name, version, folder in _version_folders(self._root):
            if len(entries) == self._max_versions:
                log.error(
                    "only %d versions are served at most; %s version %d and what follows is not",
                    self._max_versions,
                    name,
                    version,
                )
                break
            try:
                manifest = read_manifest(folder)
            except ManifestError as error:
                entry = _refused(Entry(name, version, State.LOADING), error)
            else:
                entry = Entry(name, version, State.LOADING, manifest=manifest)
            entries[name, version] = entry
        self._entries = entries

    def load_all(self) -> None:
        """Load, check and warm up every version found by `scan`.

        A version that fails is refused. StartupError passes through: it concerns all.
        """
        for entry in self.entries():
            if entry.state is State.LOADING:
                loaded = self._load(entry)
                self._entries = {**self._entries, (loaded.name, loaded.version): loaded}

    def resolve(self, name: str, version: int) -> ServedModel:
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

    def find(self, name: str, version: int) -> Entry:
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
        entries = [entry for entry in self.entries() if entry.name == name]
        if not entries:
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
        for entry in self.entries():
            if entry.model is not None:
                entry.model.batcher.close(timeout_s=timeout_s)

    def _load(self, entry: Entry) -> Entry:
        assert entry.manifest is not None  # noqa: S101 - scan gives every loading entry one
        try:
            engine = self._build_engine(entry.manifest)
            difference = engine.check_golden()
            engine.warm_up((1, self._max_batch_rows))
        except ManifestError as error:
            return _refused(entry, error)
        batcher = Batcher(
            engine,
            name=f"{entry.name}/{entry.version}",
            max_batch_rows=self._max_batch_rows,
            queue_rows=self._queue_rows,
        )
        batcher.start()
        log.info(
            "%s version %d is ready on %s; golden outputs differ by %.1g at most",
            entry.name,
            entry.version,
            engine.provider,
            difference,
        )
        model = ServedModel(entry.manifest, engine.provider, batcher)
        return replace(entry, state=State.READY, model=model)

    def _not_found(self, message: str) -> ModelNotFound:
        names = ", ".join(sorted({e.name for e in self.entries() if e.state is not State.REFUSED}))
        return ModelNotFound(f"{message}. Models: {names or 'none'}", metadata={"models": names})


def _version_folders(root: Path) -> list[tuple[str, int, Path]]:
    """Return (name, version, folder) of all <name>/<version> folders.

    Every model's highest comes first, so that a limit leaves out old ones.
    """
    found = []
    for model in sorted(root.iterdir()):
        if model.name.startswith(".") or not model.is_dir():
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


def _refused(entry: Entry, error: ManifestError) -> Entry:
    log.error("%s version %d is refused: %s", entry.name, entry.version, error)
    return replace(entry, state=State.REFUSED, reason=str(error), model=None)
