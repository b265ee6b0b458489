"""Bearer tokens of the server, from files and environment variables.

A token that is blank by mistake would leave the server open, so an empty variable is an error, not
"no token".
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Mapping
from pathlib import Path

from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)


class TokenSource:
    """The token of a file, or else of a variable; the file is read again when it changes.

    Args:
        file: path from the flag; "" for none.
        flag: name of the flag, for messages.
        variable: name of the variable that is used without a file.
        environment: the variables.
    """

    def __init__(self, file: str, flag: str, variable: str, environment: Mapping[str, str]) -> None:
        self._file = Path(file) if file else None
        self._name = f"--{flag} {file}" if file else variable
        self._text = environment.get(variable)
        self._stamp: object = None

    def read(self) -> str:
        """Return the token, "" without file and variable. Raises SettingsError."""
        if self._file is None:
            return "" if self._text is None else check_token(self._text, self._name)
        self._stamp = self._file_stamp()
        try:
            text = self._file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self._name} cannot be read: {error}") from error
        return check_token(text, self._name)

    def renewed(self) -> str | None:
        """Return the token of a changed file; None if unchanged, or (with an error log) invalid."""
        if self._file is None or self._stamp == (stamp := self._file_stamp()):
            return None
        self._stamp = stamp  # an invalid file is reported once
        try:
            token = self.read()
        except SettingsError as error:
            log.error("the changed token cannot be used, the old one stays in use: %s", error)
            return None
        log.info("the token of %s was read again", self._name)
        return token

    def _file_stamp(self) -> object:
        """Return what changes with a regular file; a pipe can be read only once."""
        assert self._file is not None  # noqa: S101 - checked by the callers
        try:
            found = self._file.stat()
        except OSError as error:
            return error.errno
        if not stat.S_ISREG(found.st_mode):
            return "a pipe or device"
        return found.st_mtime_ns, found.st_size, found.st_ino


def check_token(text: str, source: str) -> str:
    """Return the token without whitespace around it. Raises SettingsError, without the token."""
    token = text.strip()
    if not token:
        raise SettingsError(f"{source} is empty: write a token into it, or unset it")
    if token.startswith("\ufeff"):
        raise SettingsError(f"{source} begins with a byte order mark (BOM): remove it")
    if not (token.isascii() and token.isprintable()):
        raise SettingsError(
            f"{source} contains characters that gRPC metadata cannot carry, expected printable "
            "ASCII"
        )
    return token
