"""A service of docker-compose.yml with two servers, or a loud word on why there is none.

Run by `make compose-test`, or with `-m compose`; other runs leave these tests out.
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
    """Leave these tests out of runs that do not name them."""
    if "compose" in (config.getoption("-m") or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("compose")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("compose")]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two servers behind Envoy, and Prometheus, from images built here."""
    if why := missing():
        pytest.skip(f"the compose test did not run: {why}")
    folder = tmp_path_factory.mktemp("compose")
    exports = folder / "exports"
    shutil.copytree(ROOT / "exports", exports)
    port, prometheus_port = free_ports(2)
    it = Stack(f"latentserve-test-{os.getpid()}", exports, port, prometheus_port)
    images = json.loads(it.compose("config", "--format", "json"))["services"]
    came = {BASE: ensure_image(BASE, import_base)}
    for service, program in (("envoy", envoy_program()), ("prometheus", _prometheus())):
        image = images[service]["image"]

        def stand_in(name: str, program: Path | None = program, service: str = service) -> None:
            if program is None:
                pytest.skip(f"the compose test did not run: no image {name}, and no {service} here")
            wrap_program(name, program, BASE, folder / service)

        came[image] = ensure_image(image, stand_in)
    print("images:", came)
    try:
        it.compose("build", "server", timeout_s=600)
        it.up(2)
        yield it
        # Down with nothing left: what the project had is gone, whatever the tests did.
        it.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        label = f"label=com.docker.compose.project={it.project}"
        for what in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q")):
            assert run("docker", *what, "--filter", label) == "", what
    finally:
        it.compose("--profile", "*", "down", "--volumes", "--timeout", "1")
        forgotten = [f"{it.project}-server:cpu"]
        if os.environ["LATENTSERVE_ENGINE_DIR"] not in os.environ.get("DOCKER_HOST", ""):
            # Somebody's own engine: a stand-in must not be taken for the real image later.
            forgotten += [image for image, how in came.items() if how == "stand-in"]
        subprocess.run(["docker", "rmi", "-f", *forgotten], capture_output=True)


def _prometheus() -> Path | None:
    found = shutil.which("prometheus")
    return Path(found) if found else None
