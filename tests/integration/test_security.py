"""Tests of TLS, client certificates and tokens over real connections."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

import tiny_models
from latentserve_client import Client, LatentserveError
from latentserve_client.__main__ import main as latentserve
from served import BEFORE_ANY_TRANSPORT, Server, launched, served

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
TOKEN = "a-token-of-this-test"
RELOAD_TOKEN = "another-token-for-reloads"


@dataclasses.dataclass
class Files:
    """PEM files on disk."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.pem")

    def issue(self, name: str, authority: trustme.CA | None = None) -> tuple[str, str]:
        """Write a certificate for 127.0.0.1 and its key, and return both paths."""
        pair = (authority or self.authority).issue_cert("127.0.0.1", "localhost")
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        key.write_bytes(pair.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        return str(cert), str(key)

    def issue_for(self, name: str, key: PrivateKey, password: bytes = b"") -> tuple[str, str]:
        """Write a self-signed certificate for a key, and the key; return both paths."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), 1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        encryption = (
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption()
        )
        cert_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_path.write_bytes(certificate.public_bytes(pem))
        key_path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption))
        return str(cert_path), str(key_path)

    def fifo(self, name: str) -> str:
        """Create a FIFO that no process writes to: opening it would block."""
        path = self.folder / name
        os.mkfifo(path)
        return str(path)

    def secret(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text + "\n")
        return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Files(tmp_path, authority)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


@pytest.fixture
def tls(files: Files) -> tuple[str, ...]:
    cert, key = files.issue("server")
    return ("--tls-cert", cert, "--tls-key", key)


@pytest.fixture
def guarded(exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path) -> Iterator[Server]:
    """A server with TLS and both tokens."""
    flags = (
        *tls,
        *("--token-file", files.secret("token", TOKEN)),
        *("--reload-token-file", files.secret("reload", RELOAD_TOKEN)),
    )
    with served(exports, tmp_path / "log", *flags) as server:
        yield server


def cli(server: Server, *arguments: str) -> int:
    return latentserve([*arguments, "--server", server.address, "--timeout-s", "5"])


def test_tls_is_required(exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *tls) as server:
        assert cli(server, "health", "--tls-ca", files.ca) == 0
        assert cli(server, "sample", "--count", "2", "--tls-ca", files.ca) == 0
        assert cli(server, "health") == 1
        other = trustme.CA()
        other.cert_pem.write_to_path(str(tmp_path / "other.pem"))
        assert cli(server, "health", "--tls-ca", str(tmp_path / "other.pem")) == 1
        assert server.stop() == 0


def test_client_certificates_are_required_if_an_authority_is_set(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", *tls, "--tls-client-ca", files.ca) as server:
        cert, key = files.issue("client")
        stranger = files.issue("stranger", trustme.CA())
        trust = ("--tls-ca", files.ca)
        assert cli(server, "sample", *trust, "--tls-cert", cert, "--tls-key", key) == 0
        assert cli(server, "sample", *trust) == 1
        assert (
            cli(server, "sample", *trust, "--tls-cert", stranger[0], "--tls-key", stranger[1]) == 1
        )


def test_a_renewed_certificate_is_used_without_a_restart(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", *tls) as server:
        assert cli(server, "health", "--tls-ca", files.ca) == 0
        renewed = trustme.CA()
        renewed.cert_pem.write_to_path(str(tmp_path / "renewed.pem"))
        # First an incomplete pair: the old one stays in use.
        Path(tls[1]).write_text("rubbish")
        assert cli(server, "health", "--tls-ca", files.ca) == 0
        assert "cannot be used, the old ones stay" in server.log
        files.issue("server", renewed)
        assert cli(server, "health", "--tls-ca", str(tmp_path / "renewed.pem")) == 0
        assert cli(server, "health", "--tls-ca", files.ca) == 1


def test_every_method_but_health_needs_its_token(guarded: Server, files: Files) -> None:
    trust = ("--tls-ca", files.ca)
    token = ("--token-file", files.secret("mine", TOKEN))
    assert cli(guarded, "health", *trust) == 0
    assert cli(guarded, "models", *trust, *token) == 0
    assert cli(guarded, "sample", *trust, *token) == 0
    # The token of ReloadModels is not valid for other methods.
    reload_token = ("--token-file", files.secret("theirs", RELOAD_TOKEN))
    assert cli(guarded, "reload", *trust, *token) == 1
    assert cli(guarded, "reload", *trust, *reload_token) == 0
    assert cli(guarded, "models", *trust, *reload_token) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", TOKEN)],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer ")],
    ],
)
def test_a_wrong_token_is_unauthenticated_and_not_repeated(
    guarded: Server, files: Files, metadata: list[tuple[str, str]]
) -> None:
    trust = grpc.ssl_channel_credentials(Path(files.ca).read_bytes())
    with Client(guarded.address, credentials=trust, metadata=metadata) as client:
        for call in (
            client.models,
            lambda: client.sample(1),
            lambda: list(client.sample_stream(1)),
        ):
            with pytest.raises(LatentserveError) as caught:
                call()
            assert caught.value.code == "UNAUTHENTICATED"
            assert caught.value.reason == "TOKEN_REQUIRED"
            assert "Bearer TOKEN" in caught.value.message
    assert TOKEN not in guarded.log


def test_the_scheme_of_a_token_may_have_any_case(guarded: Server, files: Files) -> None:
    trust = grpc.ssl_channel_credentials(Path(files.ca).read_bytes())
    for scheme in ("bearer", "BEARER", "Bearer "):
        metadata = [("authorization", f"{scheme} {TOKEN}")]
        with Client(guarded.address, credentials=trust, metadata=metadata) as client:
            client.sample(1)


def test_a_changed_token_file_is_read_again(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    token, reload_token = files.secret("token", TOKEN), files.secret("reload", RELOAD_TOKEN)
    flags = (*tls, "--token-file", token, "--reload-token-file", reload_token)
    with served(exports, tmp_path / "log", *flags) as server:

        def accepts(text: str, method: str = "models") -> bool:
            mine = files.secret("mine", text)
            return not cli(server, method, "--tls-ca", files.ca, "--token-file", mine)

        assert accepts(TOKEN)
        Path(token).write_text("")  # while it is being written
        server.wait_for_log("the changed token cannot be used, the old one stays in use")
        assert accepts(TOKEN)
        Path(token).unlink()
        assert accepts(TOKEN)
        files.secret("token", "renewed")
        server.wait_for_log(f"the token of --token-file {token} was read again")
        assert accepts("renewed")
        assert not accepts(TOKEN)
        assert accepts(RELOAD_TOKEN, "reload")
        files.secret("reload", "renewed-too")
        server.wait_for_log(f"the token of --reload-token-file {reload_token} was read again")
        assert accepts("renewed-too", "reload")
        assert not accepts(RELOAD_TOKEN, "reload")
        assert accepts("renewed")
        assert server.stop() == 0
        assert "Traceback" not in server.log


BAD_TOKENS = {
    "": "is empty",
    " \n": "is empty",
    "\ufeffa-token": "byte order mark",
    "pass\N{LATIN SMALL LETTER O WITH DIAERESIS}rd": "printable ASCII",
    "a\x01token": "printable ASCII",
}


@BEFORE_ANY_TRANSPORT
@pytest.mark.parametrize("text", BAD_TOKENS)
@pytest.mark.parametrize("name", ["LATENTSERVE_TOKEN", "LATENTSERVE_RELOAD_TOKEN"])
def test_a_server_does_not_start_with_a_bad_token(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(name, text)
    with launched(exports, tmp_path / "log", "--allow-plaintext-token", "yes") as server:
        assert server.process.wait(20) == 2
        assert re.search(f"{name} .*{BAD_TOKENS[text]}", server.log), server.log
        assert "a-token" not in server.log
        assert "Traceback" not in server.log


@BEFORE_ANY_TRANSPORT
@pytest.mark.parametrize("text", BAD_TOKENS)
def test_a_client_does_not_start_with_a_bad_token(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: Files,
    text: str,
) -> None:
    trust = ("--tls-ca", files.ca)
    monkeypatch.setenv("LATENTSERVE_TOKEN", text)
    assert latentserve(["models", *trust]) == 2
    error = capsys.readouterr().err
    assert re.search(f"LATENTSERVE_TOKEN .*{BAD_TOKENS[text]}", error), error
    assert "a-token" not in error
    assert latentserve(["models", *trust, "--token-file", files.secret("bad", text)]) == 2
    assert BAD_TOKENS[text] in capsys.readouterr().err


@BEFORE_ANY_TRANSPORT
def test_the_command_line_sends_no_token_in_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LATENTSERVE_TOKEN", TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for command in ("models", "health", "load"):
            assert latentserve([command, "--server", address]) == 2
            assert "--allow-plaintext-token" in capsys.readouterr().err
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # no connection was made
            listener.accept()


def test_a_token_without_tls_is_refused_unless_it_is_allowed(
    exports: Path, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTSERVE_TOKEN", TOKEN)
    with launched(exports, tmp_path / "log") as server:
        assert server.process.wait(20) == 2
        assert "a token without TLS can be read by anyone" in server.log
    with served(exports, tmp_path / "log", "--allow-plaintext-token", "yes") as server:
        assert "tokens are accepted over plain text" in server.log
        assert cli(server, "models", "--allow-plaintext-token") == 0  # token of the variable
        monkeypatch.delenv("LATENTSERVE_TOKEN")
        assert cli(server, "models") == 1


@BEFORE_ANY_TRANSPORT
def test_unusable_files_end_the_process_with_a_message(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    _, other_key = files.issue("other")
    table = {
        ("--tls-cert", tls[1]): "must be set together",
        ("--tls-cert", tls[1], "--tls-key", other_key): "the TLS files cannot be used",
        ("--tls-cert", "nowhere", "--tls-key", tls[3]): "the TLS files cannot be used",
        ("--tls-client-ca", files.ca): "--tls-client-ca needs",
        (*tls, "--token-file", "nowhere"): "--token-file nowhere cannot be read",
        (*tls, "--token-file", files.secret("empty", "")): "is empty",
    }
    for flags, message in table.items():
        with launched(exports, tmp_path / "log", *flags) as server:
            assert server.process.wait(20) == 2
            assert message in server.log
            assert "Traceback" not in server.log


def test_new_connections_use_the_renewed_certificate(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    """Open connections stay usable: only new connections get the new certificate."""
    trust = grpc.ssl_channel_credentials(Path(files.ca).read_bytes())
    with (
        served(exports, tmp_path / "log", *tls) as server,
        Client(server.address, credentials=trust) as client,
    ):
        client.sample(1)
        time.sleep(0.01)
        files.issue("server")
        client.sample(1)


@BEFORE_ANY_TRANSPORT
def test_keys_that_grpcs_tls_cannot_use_end_the_process_with_a_message(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    """OpenSSL accepts all but the last of these files, and no client could connect."""
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    table = {
        files.issue_for("ed25519", ed25519.Ed25519PrivateKey.generate()): "no handshake succeeds",
        files.issue_for("p521", ec.generate_private_key(ec.SECP521R1())): "no handshake succeeds",
        files.issue_for("encrypted", ecdsa, b"password"): "the private key is encrypted",
        (files.fifo("fifo"), tls[3]): "is not a regular file",
    }
    for (cert, key), message in table.items():
        flags = ("--tls-cert", cert, "--tls-key", key)
        with launched(exports, tmp_path / "log", *flags) as server:
            assert server.process.wait(20) == 2
            assert message in server.log
            assert "Traceback" not in server.log


def test_a_renewal_that_cannot_be_used_or_read_changes_nothing(
    exports: Path, files: Files, tls: tuple[str, ...], tmp_path: Path
) -> None:
    cert, key = Path(tls[1]), Path(tls[3])

    def replace(pair: tuple[str, str]) -> None:
        Path(pair[0]).replace(cert)
        Path(pair[1]).replace(key)

    with served(exports, tmp_path / "log", *tls) as server:
        replace(files.issue_for("ed25519", ed25519.Ed25519PrivateKey.generate()))
        assert cli(server, "health", "--tls-ca", files.ca) == 0
        assert "the old ones stay in use: no handshake succeeds with gRPC's TLS" in server.log
        Path(files.fifo("fifo")).replace(cert)
        for _ in range(3):
            assert cli(server, "health", "--tls-ca", files.ca) == 0
        assert server.log.count("the old ones stay in use") == 2  # once for each change
        renewed = trustme.CA()
        renewed.cert_pem.write_to_path(str(tmp_path / "renewed.pem"))
        replace(files.issue("other", renewed))
        assert cli(server, "health", "--tls-ca", str(tmp_path / "renewed.pem")) == 0
        assert server.stop() == 0
