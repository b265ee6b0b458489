"""TLS certificates of the port, tried with gRPC's TLS and renewed without a restart."""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc

from latentserve_server.config import Settings
from latentserve_server.errors import SettingsError

log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 2**20
_TRIAL_TIMEOUT_S = 5.0
# A new connection waits so long for the check of the files, on a thread that all others need.
_PATIENCE_S = 0.5
_RETRY_S = 1.0
# In the errors of a client of gRPC that does not trust a certificate.
_DISTRUST = re.compile("CERTIFICATE_VERIFY_FAILED|verification", re.IGNORECASE)


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
        self._failure: tuple[object, str] | None = (
            None  # stamp of the files, or text if there is none
        )
        self._retry_at = 0.0
        self._renewed: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self._lock = threading.Lock()
        self._check: threading.Thread | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return the current certificates. Raises OSError or ssl.SSLError if they are unusable."""
        stamp = self._file_stamps()
        pair = (_read(self._key), _read(self._cert))
        roots = _read(self._client_ca) if self._client_ca else None
        # OpenSSL's errors are clearer than those of gRPC's TLS, which supports fewer keys.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._cert, self._key, password=_refuse_password)
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
        _try_handshake(pair, roots)
        self._stamp = stamp
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates; None if unchanged, or (with an error log) if unusable.

        gRPC calls it at every new connection, on a thread that other connections wait for. A file
        may hang, for example on a network file system, so another thread reads the files.
        """
        with self._lock:
            check = None
            if self._check is None or not self._check.is_alive():
                check = threading.Thread(target=self._renew, name="certificates", daemon=True)
                try:
                    check.start()
                except RuntimeError as error:  # no more threads
                    log.error("the TLS files cannot be checked for changes: %s", error)
                    return None
                self._check = check
        if check is not None:
            check.join(_PATIENCE_S)
            if check.is_alive():
                log.error(
                    "the TLS files cannot be read within %g s; the old ones stay in use",
                    _PATIENCE_S,
                )
        try:
            return self._renewed.pop()
        except IndexError:
            return None

    def _renew(self) -> None:
        stamp: object = None
        try:
            stamp = self._file_stamps()
            if stamp == self._stamp:
                return
            if self._failure and self._failure[0] == stamp and time.monotonic() < self._retry_at:
                return
            self._renewed.append(self.read())
        except Exception as error:  # noqa: BLE001 - the old certificates stay usable
            self._retry_at = time.monotonic() + _RETRY_S
            failure = stamp, "" if stamp else str(error)
            if failure != self._failure:
                self._failure = failure
                log.error(
                    "the changed TLS files cannot be used, the old ones stay in use: %s", error
                )
        else:
            self._failure = None
            log.info("the TLS certificates were renewed")

    def _file_stamps(self) -> object:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        stats = [file.stat() for file in files]
        return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats]


def _read(path: Path) -> bytes:
    """Return the content of a regular file; opening a FIFO or a device could block for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > _MAX_FILE_BYTES:
        raise OSError(f"{path} has more than {_MAX_FILE_BYTES} bytes")
    return content


def _refuse_password() -> NoReturn:
    """Raise OSError; without this function, OpenSSL asks for the password on the terminal."""
    raise OSError("the private key is encrypted; expected a key without a password")


def _try_handshake(pair: tuple[bytes, bytes], roots: bytes | None) -> None:
    """Make one handshake between a server and a client of gRPC with these files.

    gRPC has its own TLS library: a pair that OpenSSL accepts may fail in every handshake. Raises
    OSError.
    """
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    try:
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], roots))
    except RuntimeError as error:
        raise OSError(f"gRPC's TLS cannot load them: {error}") from error
    server.start()
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    trust = grpc.ssl_channel_credentials(pair[1])
    try:
        with grpc.secure_channel(f"127.0.0.1:{port}", trust, options=options) as channel:
            channel.unary_unary("/latentserve.Trial/Handshake")(b"", timeout=_TRIAL_TIMEOUT_S)
    except grpc.RpcError as error:
        _check_trial(error.code(), error.details() or "")
    finally:
        server.stop(0).wait(_TRIAL_TIMEOUT_S)


def _check_trial(code: grpc.StatusCode, details: str) -> None:
    """Raise OSError if the call failed because of the handshake.

    The method does not exist, which the client learns after the handshake. The client need not
    trust the certificate: it does not know the authority, and calls another name. It decides on
    this after the server has shown that it can use the key.
    """
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        log.warning("the TLS files were not tried: no reply within %g s", _TRIAL_TIMEOUT_S)
    elif code == grpc.StatusCode.UNAVAILABLE and not _DISTRUST.search(details):
        raise OSError(
            f"no handshake succeeds with gRPC's TLS ({details}); it supports RSA keys, and ECDSA "
            "keys on the curves P-256 and P-384"
        )
