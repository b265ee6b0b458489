"""Fixtures that run every integration test over both transports, on tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_models
from served import Server, served


@pytest.fixture(scope="session", params=["aio", "cq"], autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the transport of every started server through its environment."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTSERVE_TRANSPORT", name)
        yield name


@pytest.fixture(scope="session")
def tiny_exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny model of each kind, two versions of the VAE, and an autoencoder with a mixture."""
    root = tmp_path_factory.mktemp("exports")
    for kind in tiny_models.KINDS:
        tiny_models.write_model(root, f"tiny-{kind}", kind=kind)
    tiny_models.write_model(root, "tiny-vae", version=3)
    tiny_models.write_model(root, "tiny-mixture", kind="autoencoder", with_mixture=True)
    return root


@pytest.fixture(scope="session")
def server(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with small limits that tests can exceed."""
    log_path = tmp_path_factory.mktemp("server") / "log.txt"
    with served(
        tiny_exports,
        log_path,
        *("--default-model", "tiny-vae", "--max-request-rows", "32"),
        *("--max-batch-rows", "8", "--max-stream-rows", "1000"),
    ) as running:
        yield running
        assert f"transport={transport}" in running.log
        assert "falling back" not in running.log, running.log
        assert running.process.poll() is None, f"the server died:\n{running.log}"
