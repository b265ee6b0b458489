from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trustme

from latentserve_server.config import Settings
from latentserve_server.transport import certificates
from latentserve_server.transport.certificates import _Certificates

TIMEOUT_S = 10.0


def write_pair(folder: Path) -> Settings:
    pair = trustme.CA().issue_cert("localhost")
    (folder / "key.pem").write_bytes(pair.private_key_pem.bytes())
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
    return Settings(
        exports=folder, tls_cert=str(folder / "cert.pem"), tls_key=str(folder / "key.pem")
    )


def test_files_that_hang_block_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files = _Certificates(write_pair(tmp_path))
    files.read()
    write_pair(tmp_path)
    released, read = threading.Event(), certificates._read

    def hanging_read(path: Path) -> bytes:
        assert released.wait(TIMEOUT_S)
        return read(path)

    monkeypatch.setattr(certificates, "_read", hanging_read)
    assert [files.renewed() for _ in range(100)] == 100 * [None]
    assert caplog.text.count("the TLS files cannot be read within") == 1
    released.set()
    assert files._check is not None
    files._check.join(TIMEOUT_S)
    assert files.renewed() is not None
    assert files.renewed() is None


def test_a_file_of_unlimited_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(certificates._MAX_FILE_BYTES + 1))
    with pytest.raises(OSError, match="has more than 1048576 bytes"):
        certificates._read(path)
    with pytest.raises(OSError, match="is not a regular file"):
        certificates._read(tmp_path)
