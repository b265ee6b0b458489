"""Fixtures of the fault tests, which inject faults into real server processes and connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_models


@pytest.fixture(scope="session", params=["aio", "cq"], autouse=True)
def transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the transport of every started server in its environment."""
    name: str = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTSERVE_TRANSPORT", name)
        yield name


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """One tiny VAE."""
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root
