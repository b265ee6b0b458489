"""Fixture that runs docker-compose.yml with two servers, or skips with the reason.

Run by `make compose-test`, or with `-m compose`; other runs deselect these tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose_stack import (
    ROOT,
    Stack,
    ensure_image,
    free_ports,
    import_base,
    missing,
    run,
    wrap_program,
)
from deploy_files import envoy_program

BASE = "debian:13.8-slim"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect these tests in runs without `-m compose`."""
    if "compose" in (config.getoption("-m") or ""):
        return
    deselected = [item for item in items if item.get_closest_marker("compose")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if not item.get_closest_marker("compose")]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two servers behind Envoy, and Prometheus, with locally built images."""
    if reason := missing():
        pytest.skip(f"the compose test did not run: {reason}")
    folder = tmp_path_factory.mktemp("compose")
    exports = folder / "exports"
    shutil.copytree(ROOT / "exports", exports)
    port, prometheus_port = free_ports(2)
    it = Stack(f"latentserve-test-{os.getpid()}", exports, port, prometheus_port)
    images = json.loads(it.compose("config", "--format", "json"))["services"]
    sources = {BASE: ensure_image(BASE, import_base)}
    for service, program in (("envoy", envoy_program()), ("prometheus", _prometheus())):
        image = images[service]["image"]

        def stand_in(name: str, program: Path | None = program, service: str = service) -> None:
            if program is None:
                pytest.skip(f"the compose test did not run: no image {name} and no {service}")
            wrap_program(name, program, BASE, folder / service)

        sources[image] = ensure_image(image, stand_in)
    print("images:", sources)
    try:
        it.compose("build", "server", timeout_s=600)
        it.up(2)
        yield it
        # `down` must remove all containers, networks and volumes of the project.
        it.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        label = f"label=com.docker.compose.project={it.project}"
        for listing in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q")):
            assert run("docker", *listing, "--filter", label) == "", listing
    finally:
        it.compose("--profile", "*", "down", "--volumes", "--timeout", "1")
        removed = [f"{it.project}-server:cpu"]
        if os.environ["LATENTSERVE_ENGINE_DIR"] not in os.environ.get("DOCKER_HOST", ""):
            # An existing engine: remove substitute images, which must not be used later.
            removed += [image for image, source in sources.items() if source == "stand-in"]
        subprocess.run(["docker", "rmi", "-f", *removed], capture_output=True)


def _prometheus() -> Path | None:
    found = shutil.which("prometheus")
    return Path(found) if found else None
