"""Scan of the model folder: finds version folders and reports everything that is none.

A problem of one folder never affects the others: a folder that is no model, or cannot be read, is
passed over with a text for the operator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from latentserve_server.manifest.document import MANIFEST_NAME

MAX_VERSION = 2**31 - 1
"""The maximum of int32, the type in the protocol."""

_MODEL = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # as in manifest.schema.json
_VERSION = re.compile("[1-9][0-9]*")
_LAYOUT = f"expected NAME/VERSION/{MANIFEST_NAME}, with a version such as 1"
_MAX_NAME = 80


@dataclass(frozen=True)
class FolderScan:
    """The result of a scan.

    Attributes:
        versions: (name, version, folder), sorted by the rank of the version in its model, highest
            first, so that a limit excludes the lowest versions.
        unreadable: model -> why its folder could not be read.
        passed_over: one text for each folder that is not served, for the log.
    """

    versions: list[tuple[str, int, Path]] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)


def scan_folders(root: Path) -> FolderScan:
    """Find all <name>/<version> folders. Raises OSError only if `root` itself cannot be read."""
    scan = FolderScan()
    ranked: list[tuple[int, str, int, Path]] = []
    for model in sorted(root.iterdir()):
        if model.name.startswith("."):
            continue
        try:
            if not model.is_dir():
                continue
            if not _MODEL.fullmatch(model.name):
                scan.passed_over.append(
                    f"{escaped(model.name)} is passed over: this is not a model name, expected "
                    "a-z, 0-9 and hyphens, at most 63"
                )
                continue
            if leads_out(model, root):
                scan.passed_over.append(
                    f"{model.name} is ignored: it is a link that leads out of --exports"
                )
                continue
            versions = _find_versions(model, scan.passed_over)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if _MODEL.fullmatch(model.name):
                scan.unreadable[model.name] = reason
            scan.passed_over.append(
                f"{escaped(model.name)} is passed over: it cannot be read: {reason}"
            )
            continue
        ranked += [
            (rank, model.name, version, folder) for rank, (version, folder) in enumerate(versions)
        ]
    scan.versions.extend((name, version, folder) for _, name, version, folder in sorted(ranked))
    return scan


def _find_versions(model: Path, passed_over: list[str]) -> list[tuple[int, Path]]:
    """Return the version folders of a model, highest first; raises OSError."""
    versions: list[tuple[int, Path]] = []
    said = len(passed_over)
    for folder in sorted(model.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        name = f"{model.name}/{escaped(folder.name)}"
        if not _VERSION.fullmatch(folder.name):
            # Only folders with a manifest were probably meant to be served.
            if (folder / MANIFEST_NAME).exists():
                passed_over.append(f"{name} is passed over: this is not a version; {_LAYOUT}")
        elif (version := int(folder.name)) > MAX_VERSION:
            passed_over.append(f"{name} is ignored: the highest version is {MAX_VERSION}")
        else:
            versions.append((version, folder))
    if (model / MANIFEST_NAME).exists():
        passed_over.append(
            f"{model.name}/{MANIFEST_NAME} is passed over: it is not in a version folder; {_LAYOUT}"
        )
    elif not versions and len(passed_over) == said:
        passed_over.append(f"{model.name} is passed over: it has no version folder; {_LAYOUT}")
    versions.sort(reverse=True)
    return versions


def fingerprint(root: Path) -> int:
    """Return a hash of the paths, times, sizes and inodes of all files of all version folders."""
    files: list[tuple[object, ...]] = []
    try:
        scan = scan_folders(root)
    except OSError as error:  # unreadable, or being deleted: that is a change, too
        return hash((error.errno, error.filename))
    for _, _, folder in scan.versions:
        if not leads_out(folder, root):
            files += _describe_files(folder)
    files += sorted(scan.unreadable.items())
    return hash(tuple(sorted(map(repr, files))))


def _describe_files(folder: Path) -> list[tuple[object, ...]]:
    files: list[tuple[object, ...]] = []
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        return [(str(folder), error.errno)]
    for path in paths:
        try:
            found = path.stat()
        except OSError as error:  # for example a link to a file that does not exist
            files.append((str(path), error.errno))
        else:
            files.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    return files


def leads_out(folder: Path, root: Path) -> bool:
    """Return whether `folder` is a link out of the root; such folders are not read."""
    try:
        return not folder.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        return True


def escaped(name: str) -> str:
    """Return a file name as printable ASCII, shortened: it may be any bytes."""
    return ascii(name)[1:-1][:_MAX_NAME]
