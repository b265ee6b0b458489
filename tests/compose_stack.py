"""Driver of docker-compose.yml on a real Docker engine, for `tests/compose`."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[1]
STAND_INS = Path(__file__).parent / "compose" / "stand_ins"
# Without grafana, which has no stand-in.
SERVICES = ("server", "envoy", "prometheus")
# The Debian of the Dockerfiles' base image, by the name that debootstrap takes.
SUITE = "trixie"
WAIT_LIMIT_S = 60.0


def run(*command: str, timeout_s: float = 300, **more: Any) -> str:
    """Run a command and return its standard output; on failure, raise with all its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, **more
    )
    if done.returncode:
        raise AssertionError(
            f"{shlex.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done.stdout


@functools.cache
def missing() -> str:
    """Return the reason why no Docker engine can be used, or ""."""
    if not os.environ.get("LATENTSERVE_COMPOSE"):
        return (
            "no Compose of version 2; run tests/compose/engine.sh COMMAND, as `make compose-test`"
        )
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no Docker engine is running; see tests/compose/engine.sh"
    return ""


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until(condition: Callable[[], object], why: str, limit_s: float = WAIT_LIMIT_S) -> None:
    """Poll a condition; after the limit, fail with `why` and the last result."""
    end = time.monotonic() + limit_s
    result: object = None
    while time.monotonic() < end:
        try:
            result = condition()
        except (OSError, AssertionError) as error:
            result = error
        else:
            if result:
                return
        time.sleep(0.2)
    raise AssertionError(f"not within {limit_s} s: {why}; the last result: {result!r}")


@dataclass
class Stack:
    """One project of docker-compose.yml, with a separate model folder and separate ports."""

    project: str
    exports: Path
    port: int
    prometheus_port: int
    environment: dict[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ("docker-compose.yml",)

    @property
    def address(self) -> str:
        """Address that Envoy listens on."""
        return f"127.0.0.1:{self.port}"

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run Compose and return its standard output."""
        environment = {
            **os.environ,
            # Works without buildx, which the Dockerfiles do not need.
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_PROJECT_NAME": self.project,
            "LATENTSERVE_IMAGE": f"{self.project}-server:cpu",
            "LATENTSERVE_EXPORTS_DIR": str(self.exports),
            "LATENTSERVE_PORT": str(self.port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "LATENTSERVE_USER": f"{os.getuid()}:{os.getgid()}",
            **self.environment,
        }
        compose = shlex.split(os.environ["LATENTSERVE_COMPOSE"])
        files = [part for file in self.files for part in ("-f", str(ROOT / file))]
        project = ["--project-directory", str(ROOT), *files]
        return run(*compose, *project, *arguments, timeout_s=timeout_s, env=environment, cwd=ROOT)

    def up(self, servers: int) -> None:
        """Start, or scale to, this number of servers, and wait until Envoy finds all healthy."""
        self.compose(
            *("up", "--detach", "--no-build", "--no-recreate", "--pull", "never"),
            *("--scale", f"server={servers}", *SERVICES),
        )
        wait_until(
            lambda: self.healthy_servers() == servers, f"{servers} servers are healthy at Envoy"
        )

    def containers(self, service: str = "server") -> list[str]:
        """Return the ids of the service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def healthy_servers(self) -> int:
        """Return the number of servers that Envoy finds healthy."""
        page = self.inside("envoy", 9902, "/stats/prometheus")
        line = 'envoy_cluster_membership_healthy{envoy_cluster_name="servers"} '
        return next(int(x.removeprefix(line)) for x in page.splitlines() if x.startswith(line))

    def inside(self, host: str, port: int, path: str) -> str:
        """Return a page of the project's internal network, requested from one of its servers."""
        code = (
            "import sys, urllib.request as r;"
            f"sys.stdout.write(r.urlopen('http://{host}:{port}{path}', timeout=5).read().decode())"
        )
        return run("docker", "exec", self.containers()[0], "python3", "-c", code)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Query Prometheus; fails for an invalid expression."""
        found: list[dict[str, Any]] = self._prometheus("query", query=expression)["result"]
        return found

    def metric_names(self) -> set[str]:
        """Return the names of all scraped metrics, without the suffix _total of counters."""
        return {name.removesuffix("_total") for name in self._prometheus("metadata")}

    def _prometheus(self, endpoint: str, **options: str) -> Any:
        page = f"http://127.0.0.1:{self.prometheus_port}/api/v1/{endpoint}?"
        url = page + urllib.parse.urlencode(options)
        with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310
            result = json.load(reply)
        assert result["status"] == "success", result
        return result["data"]


class Load:
    """A process of `latentserve load` against an address, without client retries."""

    def __init__(self, address: str, folder: Path, duration_s: float, *options: str) -> None:
        self._report = folder / "load.json"
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "latentserve_client", "load", "--server", address),
                *("--mix", "reconstruct=2,sample=1,encode=1", "--model", "mnist-vae"),
                *("--connections", "4", "--rate", "40", "--duration-s", str(duration_s)),
                *("--timeout-s", "20", "--out", str(self._report), *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            self._process.kill()
        self._process.communicate()

    def is_running(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def finish(self, limit_s: float) -> tuple[int, int, str]:
        """Wait for the end; return the number of calls, of errors, and the output."""
        printed, _ = self._process.communicate(timeout=limit_s)
        assert self._process.returncode in (0, 1), printed
        report = json.loads(self._report.read_text("utf-8"))["runs"][0]
        return report["calls"], report["errors"], printed


def add_version(exports: Path, model: str, version: int) -> None:
    """Add a copy of a model's highest version to the folder under a new number, atomically."""
    newest = max((p for p in (exports / model).iterdir() if p.name.isdecimal()), key=_number)
    fresh = exports / model / "incoming"
    shutil.copytree(newest, fresh)
    manifest = json.loads((fresh / "manifest.json").read_text("utf-8"))
    manifest["version"] = version
    (fresh / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    fresh.rename(exports / model / str(version))


def _number(folder: Path) -> int:
    return int(folder.name)


def ensure_image(name: str, stand_in: Callable[[str], None]) -> str:
    """Ensure that an image exists; return its origin: `pulled`, `kept` or `stand-in`."""
    if not subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode:
        return "kept"
    pulled = subprocess.run(["docker", "pull", "-q", name], capture_output=True, timeout=300)
    if not pulled.returncode:
        return "pulled"
    stand_in(name)
    return "stand-in"


def import_base(name: str) -> None:
    """Make a minimal Debian with debootstrap, once, and import it under an image's name."""
    kept = Path(os.environ["LATENTSERVE_ENGINE_DIR"]) / f"{SUITE}.tar"
    if not kept.exists():
        unfinished = kept.with_suffix(".part")
        with unfinished.open("wb") as out:
            script = [str(STAND_INS / "base.sh"), SUITE, str(kept.with_suffix(""))]
            subprocess.run(["sh", *script], stdout=out, check=True, timeout=300)
        unfinished.rename(kept)
    run("docker", "import", str(kept), name)


def wrap_program(name: str, program: Path, base: str, folder: Path) -> None:
    """Build an image with a program of this machine."""
    folder.mkdir()
    shutil.copy(STAND_INS / "Dockerfile", folder)
    shutil.copy(program, folder / "program")
    (folder / "program").chmod(0o755)
    arguments: Sequence[str] = ("--build-arg", f"BASE={base}", "--build-arg", "PROGRAM=program")
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    run("docker", "build", "-q", *arguments, "-t", name, str(folder), env=environment)
