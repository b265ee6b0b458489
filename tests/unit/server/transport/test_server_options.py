"""Tests of the server's gRPC options."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from latentserve_server.config import Settings
from latentserve_server.manifest.reader import read_manifest
from latentserve_server.transport.server_options import endpoint


def options(tmp_path: Path, **settings: object) -> dict[str, int]:
    return dict(endpoint(Settings(exports=tmp_path, **settings), ()).options)  # type: ignore[arg-type]


def test_the_limits_follow_the_settings(tmp_path: Path) -> None:
    found = options(tmp_path, max_connections=3, max_concurrent_streams=4, handshake_timeout_s=0.25)
    assert found["grpc.max_allowed_incoming_connections"] == 3
    assert found["grpc.max_concurrent_streams"] == 4
    assert found["grpc.server_handshake_timeout_ms"] == 250


def test_the_ping_limit_allows_jitter_at_ten_seconds(tmp_path: Path) -> None:
    """Go clients ping at most every 10 s; test_limits has a slow test with such a client."""
    found = options(tmp_path)
    assert found["grpc.http2.min_ping_interval_without_data_ms"] <= 8_000
    assert found["grpc.keepalive_permit_without_calls"] == 1
    assert found["grpc.http2.max_ping_strikes"] == 2


def test_the_soft_and_hard_metadata_limits_are_equal(tmp_path: Path) -> None:
    found = options(tmp_path)
    assert found["grpc.max_metadata_size"] == found["grpc.absolute_max_metadata_size"] == 16_384


@pytest.mark.parametrize(("rows", "limit"), [(1, 4 * 2**20), (2**20, 2 * 2**20 * 16 * 4)])
def test_the_largest_message_follows_from_the_largest_model(
    tmp_path: Path, rows: int, limit: int
) -> None:
    manifest = read_manifest(tiny_models.write_model(tmp_path, "tiny"))
    settings = Settings(exports=tmp_path, max_request_rows=rows, queue_rows=rows)
    found = dict(endpoint(settings, [manifest]).options)
    assert found["grpc.max_receive_message_length"] == limit


def test_the_port_is_shared_only_if_configured(tmp_path: Path) -> None:
    assert options(tmp_path)["grpc.so_reuseport"] == 0
    assert options(tmp_path, workers=2)["grpc.so_reuseport"] == 1
    assert options(tmp_path, reuse_port="yes")["grpc.so_reuseport"] == 1
