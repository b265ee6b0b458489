"""Authentication and encryption: TLS, client certificates and bearer tokens.

Health and reflection need no token, because an orchestrator has none and the contract is public.
"""

from __future__ import annotations

import hmac
import logging
import os
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc

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
