"""Files of a model folder: their sizes, SHA-256 and content.

The content of a file is used only after its SHA-256 was checked on the same bytes. So a file that
is changed while it is loaded, or while it is served, has no effect on a model.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from latentserve_server.errors import ManifestError


@dataclass(frozen=True)
class FileEntry:
    """SHA-256 (hexadecimal) and size of a file, from the manifest."""

    sha256: str
    bytes: int


def open_file(folder: Path, name: str) -> tuple[BufferedReader, int]:
    """Open a regular file inside the folder; return it with its size in bytes.

    Raises OSError, and ManifestError if it is not a regular file inside the folder.
    """
    path = folder / name
    try:
        # A symbolic link may point anywhere; its target must be inside the folder.
        target = path.resolve()
        if not target.is_relative_to(folder.resolve()):
            raise ManifestError(f"{name} leads out of the model's folder")
    except RuntimeError as error:  # raised by resolve for a link to itself before Python 3.13
        raise ManifestError(f"{name} cannot be read: it is a link to itself") from error
    # Opening a pipe would block, and opening a device may have effects.
    if not stat.S_ISREG(path.stat().st_mode):
        raise _not_regular(name)
    # The file may have been replaced by a pipe meanwhile.
    file = open(target, "rb", opener=_open_without_blocking)  # noqa: SIM115 - returned
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise _not_regular(name)
    return file, found.st_size


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def check_file(folder: Path, name: str, entry: FileEntry) -> None:
    """Check size and SHA-256 of a file without keeping its content. Raises ManifestError."""
    try:
        file, size = open_file(folder, name)
        with file:
            _check_size(name, size, entry)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(f"{name} cannot be read: {error.strerror}") from error
    _check_digest(name, digest, entry)


def read_file(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Return the content of a file, after a check of its size and SHA-256.

    Raises ManifestError.
    """
    try:
        file, size = open_file(folder, name)
        with file:
            _check_size(name, size, entry)
            content = file.read(entry.bytes + 1)
    except OSError as error:
        raise ManifestError(f"{name} cannot be read: {error.strerror}") from error
    _check_size(name, len(content), entry)
    _check_digest(name, hashlib.sha256(content).hexdigest(), entry)
    return content


def _check_size(name: str, found: int, entry: FileEntry) -> None:
    if found != entry.bytes:
        raise ManifestError(f"{name} has {found} bytes, the manifest says {entry.bytes}")


def _check_digest(name: str, found: str, entry: FileEntry) -> None:
    if found != entry.sha256:
        raise ManifestError(f"{name} has SHA-256 {found}, the manifest says {entry.sha256}")


def _not_regular(name: str) -> ManifestError:
    return ManifestError(f"{name} cannot be read: it is not a regular file")
