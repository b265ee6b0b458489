"""Folder watcher: reloads the repository on a signal or when the model folder changes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from latentserve_server.errors import ModelFolderUnreadable
from latentserve_server.repository.folders import fingerprint
from latentserve_server.repository.lifecycle import Repository

log = logging.getLogger(__name__)


class FolderWatcher:
    """Reloads a repository outside of the event loop.

    Args:
        repository: the model repository.
        root: its folder.
    """

    def __init__(self, repository: Repository, root: Path) -> None:
        self._repository = repository
        self._root = root
        self._running = self._waiting = False

    async def reload(self) -> None:
        """Reload and log the result; a failed reload does not change the served versions.

        Requests during a reload share one further reload, and return at once.
        """
        if self._running:
            self._waiting = True
            return
        self._running = True
        try:
            await self._reload()
            while self._waiting:
                self._waiting = False
                await self._reload()
        finally:
            self._running = False

    async def _reload(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._repository.reload)
        except ModelFolderUnreadable:
            pass  # the repository has logged it
        except Exception:
            log.exception("the reload failed")

    async def poll(self, interval_s: float) -> None:
        """Reload when the folder has changed and then stayed the same for one interval."""
        loaded = previous = await self._fingerprint()
        while True:
            await asyncio.sleep(interval_s)
            found = await self._fingerprint()
            # A folder that is still being written changes between two polls.
            if found == previous != loaded:
                await self.reload()
                loaded = found
            previous = found

    async def _fingerprint(self) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, fingerprint, self._root)
