"""Authentication of calls by bearer tokens; `certificates` has TLS and client certificates.

Health and reflection need no token, because an orchestrator has none and the contract is public.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from latentserve_server.config import Settings
from latentserve_server.errors import SettingsError, Unauthenticated

log = logging.getLogger(__name__)

RELOAD_METHOD = "/latentserve.v1.ModelService/ReloadModels"

Metadata = Iterable[tuple[str, str | bytes]]


class TokenGuard:
    """Checks the bearer token of a call.

    Args:
        token: the required token; "" for none.
        reload_token: the required token of ReloadModels; "" for the same as `token`.
    """

    def __init__(self, token: str = "", reload_token: str = "") -> None:
        self._token = token.encode()
        self._reload_token = (reload_token or token).encode()

    def check(self, method: str, metadata: Metadata | None) -> None:
        """Raise Unauthenticated unless the call carries the token of its method."""
        expected = self._reload_token if method == RELOAD_METHOD else self._token
        if not expected:
            return
        for key, value in metadata or ():
            if key == "authorization":
                sent = value.encode() if isinstance(value, str) else value
                # In constant time, so that its duration does not reveal a correct prefix.
                if hmac.compare_digest(sent, b"Bearer " + expected):
                    return
                raise Unauthenticated(
                    "the authorization metadata does not contain the token of this method; "
                    "expected 'Bearer TOKEN'"
                )
        raise Unauthenticated(
            "the call has no authorization metadata, expected 'Bearer TOKEN'; "
            "ask the operator of the server for the token"
        )


def token_guard(settings: Settings, environment: Mapping[str, str] = os.environ) -> TokenGuard:
    """Return the guard for the tokens in files or in LATENTSERVE_TOKEN, LATENTSERVE_RELOAD_TOKEN.

    Raises SettingsError for a file that cannot be read, and for a token without TLS unless
    --allow-plaintext-token is `yes`.
    """
    token = _token(settings.token_file, "token-file", environment.get("LATENTSERVE_TOKEN", ""))
    reload_token = _token(
        settings.reload_token_file,
        "reload-token-file",
        environment.get("LATENTSERVE_RELOAD_TOKEN", ""),
    )
    if (token or reload_token) and not settings.tls_cert:
        if settings.allow_plaintext_token != "yes":
            raise SettingsError(
                "a token without TLS can be read by anyone on the network path: set --tls-cert "
                "and --tls-key, or --allow-plaintext-token yes if a proxy in front has TLS"
            )
        log.warning("tokens are accepted over plain text because of --allow-plaintext-token")
    return TokenGuard(token, reload_token)


def _token(file: str, flag: str, variable: str) -> str:
    if not file:
        return variable.strip()
    try:
        token = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--{flag} {file} cannot be read: {error}") from error
    if not token:
        raise SettingsError(f"--{flag} {file} is empty")
    return token
