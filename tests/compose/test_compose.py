"""`docker compose up` on a real engine: calls, a killed server, scaling, reloads and metrics.

The tests share one project and leave it with two healthy servers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
import trustme

from compose_stack import ROOT, Load, Stack, add_version, free_ports, run, wait_until
from deploy_files import dashboard_queries
from latentserve.v1 import generative_service_pb2
from latentserve_client import Client, LatentserveError, Unauthenticated, Unavailable, digits

pytestmark = [pytest.mark.compose, pytest.mark.timeout(420)]
# The groups that need only one server with the shipped kinds of models.
GROUPS = "decode,denoise,reconstruct,sample,stream"

# Queries of the dashboard about events that may not occur, and metrics of workers.
EVENTS = ("ALERTS", "state!=", "stalled", "rejected", "dropped", "failures", "outcomes", "restarts")
ONLY_WITH_WORKERS = {"latentserve_worker_restarts"}


def test_all_five_calls_from_python(stack: Stack) -> None:
    x = digits.bundled().images[:10]
    with Client(stack.address, timeout_s=10) as client:
        z = client.encode(x, model="mnist-vae").latents
        y = client.decode(z, model="mnist-vae").images
        reconstructed = client.reconstruct(x, model="mnist-vae")
        clean = client.denoise(x, model="mnist-dae").images
        sampled = client.sample(4, model="mnist-vae", seed=7)
        chunks = list(client.sample_stream(4, model="mnist-vae", seed=7, chunk_rows=2))
    assert (z.shape, y.shape, clean.shape) == ((10, 20), (10, 1, 28, 28), (10, 1, 28, 28))
    assert reconstructed.squared_error.mean() / x[0].size < 0.02
    assert abs(reconstructed.images - y).max() < 1e-4
    assert sum(len(chunk.images) for chunk in chunks) == len(sampled.images) == 4


@pytest.mark.skipif(not shutil.which("go"), reason="the Go client needs go")
def test_the_client_for_go(stack: Stack, tmp_path: Path) -> None:
    runner = tmp_path / "conformance"
    build = ["go", "build", "-o", str(runner), "./cmd/conformance"]
    run(*build, cwd=ROOT / "clients" / "go", timeout_s=300)
    servers, report = tmp_path / "servers.json", tmp_path / "report.json"
    servers.write_text(json.dumps({"servers": {"main": stack.address}}), "utf-8")
    cases = ["--cases", str(ROOT / "clients" / "conformance" / "cases"), "--groups", GROUPS]
    command = [str(runner), *cases, "--servers", str(servers), "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    groups = json.loads(report.read_text("utf-8"))["groups"]
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(groups) == set(GROUPS.split(",")), groups


def test_grpc_web_is_allowed_for_local_pages_only(stack: Stack) -> None:
    message = generative_service_pb2.SampleRequest(count=1, seed=7).SerializeToString()
    url = f"http://{stack.address}/latentserve.v1.GenerativeService/Sample"
    headers = {
        "content-type": "application/grpc-web+proto",
        "x-grpc-web": "1",
        "origin": "http://localhost:5173",
    }
    request = urllib.request.Request(url, struct.pack(">BI", 0, len(message)) + message, headers)
    with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
        body = reply.read()
        assert reply.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert "grpc-status" in reply.headers["access-control-expose-headers"]
    flag, size = struct.unpack(">BI", body[:5])
    message_reply = generative_service_pb2.SampleResponse.FromString(body[5 : 5 + size])
    assert flag == 0
    assert list(message_reply.images.tensor.shape) == [1, 1, 28, 28]
    assert b"grpc-status:0" in body[5 + size :]

    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-grpc-web",
    }
    for origin, allowed in (("http://localhost:5173", True), ("https://example.org", False)):
        options = urllib.request.Request(
            url, headers={"origin": origin, **preflight}, method="OPTIONS"
        )
        try:
            with urllib.request.urlopen(options, timeout=10) as reply:  # noqa: S310
                returned = reply.headers["access-control-allow-origin"]
        except urllib.error.HTTPError as error:
            with error:
                returned = error.headers["access-control-allow-origin"]
        assert (returned == origin) is allowed, origin


def test_the_image_is_minimal_and_the_container_is_restricted(stack: Stack) -> None:
    container = stack.containers()[0]
    found = json.loads(run("docker", "inspect", container))[0]
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    assert found["HostConfig"]["Memory"] == 2 << 30
    assert found["Config"]["User"] == "10001:10001"
    for program in ("cc", "gcc", "g++", "pip", "pip3", "make"):
        assert run("docker", "exec", container, "sh", "-c", f"command -v {program} || true") == ""
    code = (
        "import importlib.util as u;"
        "print([m for m in ('torch', 'onnx', 'pip', 'setuptools') if u.find_spec(m)])"
    )
    assert run("docker", "exec", container, "python3", "-c", code).strip() == "[]"
    # The server has written nothing to /tmp.
    assert run("docker", "exec", container, "sh", "-c", "ls -A /tmp").strip() == ""
    size = int(run("docker", "image", "inspect", "-f", "{{.Size}}", found["Image"]))
    print(f"size of the image: {size / 1e6:.0f} MB")
    assert size < 400e6


def test_a_server_killed_under_load_is_replaced(stack: Stack, tmp_path: Path) -> None:
    victim = stack.containers()[0]
    pid = int(run("docker", "inspect", "-f", "{{.State.Pid}}", victim))
    before = _served(stack, victim)
    with Load(stack.address, tmp_path, 15, "--retries", "3") as load:
        wait_until(lambda: _served(stack, victim) > before + 40, "the server has load")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _restarts(victim) == 1, "the engine restarts the server")
        wait_until(lambda: stack.healthy_servers() == 2, "Envoy finds it healthy again")
        calls, errors, printed = load.finish(60)
    assert calls == 600, printed
    assert errors == 0, printed


def test_scaling_from_one_to_three_to_one_under_load_fails_no_call(
    stack: Stack, tmp_path: Path
) -> None:
    stack.up(1)
    # The client does not retry, so that every failure is counted.
    with Load(stack.address, tmp_path, 30) as load:
        stack.up(3)
        wait_until(
            lambda: all(_served(stack, c) > 20 for c in stack.containers()),
            "all servers have calls",
        )
        stack.up(1)
        assert load.is_running(), "the load ended before the scaling"
        calls, errors, printed = load.finish(60)
    stack.up(2)
    assert calls == 1200, printed
    assert errors == 0, printed


def test_a_model_is_reloaded_under_load(stack: Stack, tmp_path: Path) -> None:
    with Load(stack.address, tmp_path, 8) as load, Client(stack.address, timeout_s=10) as client:
        before = client.sample(1, model="mnist-vae").served_by.version
        add_version(stack.exports, "mnist-vae", 77)
        output = stack.compose("run", "--rm", "--no-deps", "reload")
        assert output.count(" loaded") == 2, output
        versions = {client.sample(1, model="mnist-vae").served_by.version for _ in range(20)}
        assert load.is_running(), "the load ended before the reload"
        calls, errors, printed = load.finish(40)
    assert before < 77
    assert versions == {77}
    assert calls == 320, printed
    assert errors == 0, printed


def test_the_load_profile_writes_its_report(stack: Stack) -> None:
    reports = [ROOT / "reports" / name for name in ("load.html", "load.json")]
    saved = {path: path.read_bytes() for path in reports if path.exists()}
    try:
        stack.compose(
            "run", "--rm", "--no-deps", "load", "--model", "mnist-vae", "--duration-s", "3"
        )
        report = json.loads(reports[1].read_text("utf-8"))["runs"][0]
        assert report["calls"] > 0
        assert report["errors"] == 0
        assert "<html" in reports[0].read_text("utf-8")
    finally:
        for path in reports:
            path.unlink(missing_ok=True)
        for path, content in saved.items():
            path.write_bytes(content)


def test_prometheus_scrapes_all_and_every_query_of_the_dashboard_has_a_result(
    stack: Stack, tmp_path: Path
) -> None:
    wait_until(
        lambda: len(stack.query('up{job="latentserve"} == 1')) == 2, "both servers are scraped"
    )
    wait_until(lambda: stack.query('up{job="envoy"} == 1'), "Envoy is scraped")
    with Client(stack.address, timeout_s=10) as client, pytest.raises(LatentserveError):
        client.sample(1_000_000)
    # A rate is the difference of two scrapes.
    refused = 'rate(grpc_server_handled_total{grpc_code="INVALID_ARGUMENT"}[1m])'
    with Load(stack.address, tmp_path, 60):
        wait_until(lambda: stack.query(refused), "the refused call is counted")
        busy = 'sum(rate(grpc_server_handled_total{job="latentserve"}[1m])) > 1'
        wait_until(lambda: stack.query(busy), "calls are counted")
    known = stack.metric_names()
    for title, query in dashboard_queries():
        found = stack.query(query.replace("$__rate_interval", "5m").replace("$model", ".*"))
        names = set(re.findall(r"\b(?:latentserve|grpc_server|envoy|process)_\w+(?=\{)", query))
        unknown = {re.sub("_(bucket|sum|count|total)$", "", name) for name in names} - known
        assert unknown <= ONLY_WITH_WORKERS, f"{title}: {query}"
        # An empty result is correct for events that have not occurred.
        if not any(word in query for word in EVENTS):
            assert found, f"{title}: {query}"
    unhealthy = {"LatentserveDown", "EnvoyDown", "EnvoyNoHealthyServer", "LatentserveModelRefused"}
    firing = {a["metric"]["alertname"] for a in stack.query('ALERTS{alertstate="firing"}')}
    assert not firing & unhealthy


def test_the_overlays_for_tokens_and_tls(stack: Stack, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    for name in ("token", "reload-token"):
        (tmp_path / name).write_text(f"the {name}", "utf-8")
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    port, prometheus_port = free_ports(2)
    exposed = Stack(
        f"{stack.project}-tls",
        stack.exports,
        port,
        prometheus_port,
        environment={
            "LATENTSERVE_IMAGE": f"{stack.project}-server:cpu",
            "LATENTSERVE_TLS_DIR": str(tmp_path),
            "LATENTSERVE_TOKEN_PATH": str(tmp_path / "token"),
            "LATENTSERVE_RELOAD_TOKEN_PATH": str(tmp_path / "reload-token"),
        },
        files=("docker-compose.yml", "deploy/compose.tokens.yml", "deploy/compose.tls.yml"),
    )
    tls = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    try:
        exposed.up(1)
        token = [("authorization", "Bearer the token")]
        with Client(exposed.address, credentials=tls, metadata=token) as client:
            assert len(client.sample(2).images) == 2
            with pytest.raises(Unauthenticated):
                client.reload_models()
        with Client(exposed.address, credentials=tls) as anonymous, pytest.raises(Unauthenticated):
            anonymous.sample(2)
        plain = Client(exposed.address, metadata=token, allow_plaintext_token=True)
        with plain, pytest.raises(Unavailable):
            plain.sample(2)
        # The reload service has the reload token.
        assert "unchanged" in exposed.compose("run", "--rm", "--no-deps", "reload")
    finally:
        exposed.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


def test_no_log_line_is_an_error(stack: Stack) -> None:
    lines = stack.compose("logs", "--no-log-prefix", "server").splitlines()
    errors = [line for line in lines if '"level": "error"' in line]
    assert len(lines) > 10
    assert not errors


def _served(stack: Stack, container: str) -> float:
    """Return the number of completed calls from the metrics of a server."""
    code = (
        "import urllib.request as r;"
        "t = r.urlopen('http://127.0.0.1:9464/metrics', timeout=5).read().decode();"
        "print(sum(float(x.split()[-1]) for x in t.splitlines()"
        " if x.startswith('grpc_server_handled_total')))"
    )
    return float(run("docker", "exec", container, "python3", "-c", code))


def _restarts(container: str) -> int:
    return int(run("docker", "inspect", "-f", "{{.RestartCount}}", container))
