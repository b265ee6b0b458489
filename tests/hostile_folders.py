"""`hostile_folders.py ROOT OUTSIDE WARM_UP`: load hostile models, print the opened files.

Python's audit events report the files and folders that Python opens and lists. inotify reports
all opened files in OUTSIDE, including those that ONNX Runtime's C++ opens; a file of ROOT that
must be opened proves that inotify works.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from latentserve_server.engine.device import CPU
from latentserve_server.engine.onnx import OnnxEngine
from latentserve_server.model_limits import Limits
from latentserve_server.repository.folders import fingerprint
from latentserve_server.repository.lifecycle import Repository
from latentserve_server.repository.loader import Loader

IN_OPEN, IN_NONBLOCK = 0x20, 0o4000
OPENING = ("open", "os.listdir", "os.scandir", "ctypes.dlopen", "import")


class Watch:
    """Reports with inotify which of the given files and folders were opened."""

    def __init__(self, paths: list[Path]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(IN_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._paths = {
            libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN): path for path in paths
        }
        if -1 in self._paths:
            raise OSError(ctypes.get_errno(), "inotify")

    def opened(self) -> list[str]:
        """Return the paths that were opened since the last call."""
        try:
            events = os.read(self._fd, 2**20)
        except BlockingIOError:
            return []
        found, offset = set(), 0
        while offset < len(events):
            number, _, _, size = struct.unpack_from("iIII", events, offset)
            found.add(str(self._paths[number]))
            offset += 16 + size
        return sorted(found)


def load(root: Path) -> Repository:
    """Scan, load, reload, check for changes: everything that a server does with a folder."""
    loader = Loader(
        lambda manifest: OnnxEngine(manifest, CPU, threads=1),
        limits=lambda name: Limits(max_batch_rows=4, queue_rows=16),
    )
    repository = Repository(root, loader, max_versions=100)
    repository.scan()
    repository.load_all()
    repository.reload()
    fingerprint(root)
    return repository


def main(root: Path, outside: Path, warm_up: Path) -> None:
    """Print the opened files, and the state of each version, as JSON."""
    load(warm_up).close(timeout_s=5)  # imports and lookups that happen only once
    np.random.Philox(0)
    seen: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event in OPENING:
            file = arguments[0]
            path = os.fsdecode(file) if isinstance(file, str | bytes | os.PathLike) else file
            seen.append(f"{event} {path}")

    bait = [*sorted(outside.rglob("*")), outside]
    control = root / "good" / "1" / "decode.onnx"
    watch = Watch([*bait, control])
    sys.addaudithook(hook)
    repository = load(root)
    listening = False
    print(
        json.dumps(
            {
                "python": seen,
                "process": watch.opened(),
                "versions": {
                    f"{entry.name}/{entry.version}": f"{entry.state.value}: {entry.reason}"
                    for entry in repository.versions()
                },
            }
        )
    )
    repository.close(timeout_s=5)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
