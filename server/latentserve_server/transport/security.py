"""Authentication of calls by bearer tokens; `certificates` has TLS and client certificates.

Health and reflection need no token, because an orchestrator has none and the contract is public.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Iterable, Mapping, Sequence

from latentserve_server.config import Settings
from latentserve_server.errors import SettingsError, Unauthenticated
from latentserve_server.transport.tokens import TokenSource

log = logging.getLogger(__name__)

RELOAD_METHOD = "/latentserve.v1.ModelService/ReloadModels"

_RENEW_INTERVAL_S = 1.0

Metadata = Iterable[tuple[str, str | bytes]]


class TokenGuard:
    """Checks the bearer token of a call.

    Args:
        token: the required token; "" for none.
        reload_token: the required token of ReloadModels; "" for the same as `token`.
        sources: where both tokens come from, to read them again; empty to keep them.
    """

    def __init__(
        self, token: str = "", reload_token: str = "", sources: Sequence[TokenSource] = ()
    ) -> None:
        self._sources = sources
        self._use(token, reload_token)

    def _use(self, token: str, reload_token: str) -> None:
        self._texts = token, reload_token
        self._token = token.encode()
        self._reload_token = (reload_token or token).encode()

    def renew(self) -> None:
        """Use the tokens of changed files; a removed token stays in use."""
        renewed = [source.renewed() for source in self._sources]
        if any(renewed):
            token, reload_token = (
                new or old for new, old in zip(renewed, self._texts, strict=True)
            )
            self._use(token, reload_token)

    async def renew_regularly(self) -> None:
        """Call `renew` every second on another thread, until the task is cancelled."""
        while self._sources:
            await asyncio.sleep(_RENEW_INTERVAL_S)
            await asyncio.to_thread(self.renew)

    def check(self, method: str, metadata: Metadata | None) -> None:
        """Raise Unauthenticated unless the call carries the token of its method."""
        expected = self._reload_token if method == RELOAD_METHOD else self._token
        if not expected:
            return
        for key, value in metadata or ():
            if key == "authorization":
                sent = value.encode() if isinstance(value, str) else value
                scheme, _, token = sent.partition(b" ")
                # In constant time, so that its duration does not reveal a correct prefix.
                same = hmac.compare_digest(token.lstrip(b" "), expected)
                if same and scheme.lower() == b"bearer":  # RFC 9110: of any case
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

    Raises SettingsError for a file that cannot be read, for a token that is empty or not ASCII,
    and for a token without TLS unless --allow-plaintext-token is `yes`.
    """
    sources = (
        TokenSource(settings.token_file, "token-file", "LATENTSERVE_TOKEN", environment),
        TokenSource(
            settings.reload_token_file, "reload-token-file", "LATENTSERVE_RELOAD_TOKEN", environment
        ),
    )
    token, reload_token = (source.read() for source in sources)
    if (token or reload_token) and not settings.tls_cert:
        if settings.allow_plaintext_token != "yes":
            raise SettingsError(
                "a token without TLS can be read by anyone on the network path: set --tls-cert "
                "and --tls-key, or --allow-plaintext-token yes if a proxy in front has TLS"
            )
        log.warning("tokens are accepted over plain text because of --allow-plaintext-token")
    return TokenGuard(token, reload_token, sources if token or reload_token else ())
