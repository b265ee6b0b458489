"""Authentication and encryption: TLS, client certificates and bearer tokens.

Health and reflection need no token, because an orchestrator has none and the contract is public.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import grpc

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


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Return the credentials of the port, None for plain text.

    The files are checked for changes at every new connection, so a renewed certificate needs no
    restart. Raises SettingsError for files that cannot be used.
    """
    if not settings.tls_cert and not settings.tls_key:
        if settings.tls_client_ca:
            raise SettingsError("--tls-client-ca needs --tls-cert and --tls-key")
        return None
    if not (settings.tls_cert and settings.tls_key):
        raise SettingsError("--tls-cert and --tls-key must be set together; one is missing")
    certificates = _Certificates(settings)
    try:
        first = certificates.read()
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the TLS files cannot be used: {error}") from error
    return grpc.dynamic_ssl_server_credentials(
        first, certificates.renewed, require_client_authentication=bool(settings.tls_client_ca)
    )


class _Certificates:
    """The TLS files, which are read again when one of them changes."""

    def __init__(self, settings: Settings) -> None:
        self._cert, self._key = Path(settings.tls_cert), Path(settings.tls_key)
        self._client_ca = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        self._stamp: object = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return the current certificates. Raises OSError or ssl.SSLError."""
        stamp = self._file_stamps()
        # Checked here, because gRPC would only log a mismatch, and refuse every client.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._cert, self._key)
        roots = None
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
            roots = self._client_ca.read_bytes()
        pair = (self._key.read_bytes(), self._cert.read_bytes())
        self._stamp = stamp
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates; None if unchanged, or (with an error log) if invalid."""
        try:
            if self._file_stamps() == self._stamp:
                return None
            renewed = self.read()
        except (OSError, ssl.SSLError) as error:
            log.error("the changed TLS files cannot be used, the old ones stay in use: %s", error)
            return None
        log.info("the TLS certificates were renewed")
        return renewed

    def _file_stamps(self) -> object:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        stats = [file.stat() for file in files]
        return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats]
