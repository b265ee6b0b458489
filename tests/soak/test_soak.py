"""Soak test: minutes of all kinds of calls with reloads; replies are correct, nothing grows.

    LATENTSERVE_TEST_SOAK_S=180 python -m pytest -m soak tests/soak -s

It prints the measurements, and writes the samples to runs/soak-TRANSPORT.csv for a plot.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

import tiny_models
from latentserve.v1 import model_service_pb2 as models_pb
from scraped import value
from served import Server, served
from soak_calls import TIMEOUT_S, Client
from soak_samples import Sample, Verdict, write_csv
from vitals import Vitals, eventually

SOAK_S = float(os.environ.get("LATENTSERVE_TEST_SOAK_S", "180"))
ACTION = models_pb.ReloadOutcome
CLIENTS = 4
RELOAD_EVERY_S = 0.5
SAMPLE_EVERY_S = 0.25
# Long enough for a leak of 1 KB per batch to exceed the noise.
CONTROL_S = min(SOAK_S, 40.0)
LEAKY_SERVER = Path(__file__).parent / "leaky_server.py"
RUNS = Path(__file__).resolve().parents[2] / "runs"
FLAGS = (
    *("--default-model", "tiny-vae", "--max-request-rows", "32", "--max-batch-rows", "8"),
    *("--max-stream-rows", "1000", "--metrics-listen", "127.0.0.1:0", "--log-level", "info"),
)
pytestmark = [pytest.mark.soak, pytest.mark.timeout(SOAK_S + 120)]


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """The models of the integration tests."""
    root = tmp_path / "exports"
    for kind in tiny_models.KINDS:
        tiny_models.write_model(root, f"tiny-{kind}", kind=kind)
    tiny_models.write_model(root, "tiny-vae", version=3)
    tiny_models.write_model(root, "tiny-mixture", kind="autoencoder", with_mixture=True)
    return root


@pytest.fixture
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the transport in the environment of the server."""
    name: str = request.param
    monkeypatch.setenv("LATENTSERVE_TRANSPORT", name)
    return name


def soak(server: Server, exports: Path, seconds: float) -> tuple[list[Sample], list[Client]]:
    """Call and reload for `seconds`; return the samples and the clients."""
    clients = [Client(server, number) for number in range(CLIENTS)]
    samples: list[Sample] = []
    started = time.monotonic()
    for client in clients:
        client.start()
    reloads = 0
    while (passed_s := time.monotonic() - started) < seconds:
        if any(client.failure for client in clients):
            break
        if passed_s >= reloads * RELOAD_EVERY_S:
            reloads += 1
            reload(server, exports, reloads)
        vitals = Vitals.of(server.process.pid)
        calls = sum(client.calls for client in clients)
        samples.append(Sample(passed_s, calls, vitals.resident_mb, vitals.threads, vitals.files))
        time.sleep(SAMPLE_EVERY_S)
    for client in clients:
        client.request_stop()
    for client in clients:
        client.join(TIMEOUT_S)
        assert not client.is_alive(), "a call did not end"
    return samples, clients


def reload(server: Server, exports: Path, number: int) -> None:
    """Change the files of a version, every fourth time to invalid ones, and reload it."""
    folder = exports / "tiny-vae" / "1"
    manifest = tiny_models.read_manifest(folder)
    manifest["description"] = f"Reload {number}."
    broken = number % 4 == 0
    if broken:
        (exports / "tiny-gan" / "1" / "golden.npz").write_bytes(b"broken")
    else:
        tiny_models.write_manifest(folder, manifest)
    with server.models() as stub:
        names = ["tiny-gan" if broken else "tiny-vae"]
        reply = stub.ReloadModels(models_pb.ReloadModelsRequest(names=names), timeout=TIMEOUT_S)
    actions = {outcome.version: outcome.action for outcome in reply.outcomes}
    assert actions[1] == (ACTION.ACTION_REFUSED if broken else ACTION.ACTION_LOADED), reply


def report(name: str, samples: list[Sample], clients: list[Client]) -> Verdict:
    """Print and write the measurements; return the verdict."""
    verdict = Verdict.of(samples)
    write_csv(RUNS / f"soak-{name}.csv", samples)
    kinds: Counter[str] = Counter()
    for client in clients:
        kinds.update(client.by_kind)
    last = samples[-1]
    print(
        f"\nsoak {name}: {verdict.calls} calls in {last.seconds:.0f} s, "
        f"{verdict.mb_per_10k_calls:+.2f} MB per 10,000 calls after the warm-up, "
        f"{last.resident_mb:.1f} MB at the end, threads {verdict.threads_growth:+.1f} "
        f"(now {last.threads}), files {verdict.files_growth:+.1f} (now {last.files})"
    )
    print("  " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    return verdict


@pytest.mark.parametrize("transport", ["aio", "cq"], indirect=True)
def test_every_reply_is_correct_and_nothing_grows(
    transport: str, exports: Path, tmp_path: Path
) -> None:
    with served(exports, tmp_path / "log", *FLAGS) as server:
        samples, clients = soak(server, exports, SOAK_S)
        assert [client.failure for client in clients if client.failure] == []
        verdict = report(transport, samples, clients)
        assert verdict.problems == []
        eventually(
            lambda: (
                value(server, "grpc_server_started_total")
                == value(server, "grpc_server_handled_total")
            ),
            "a call did not end",
        )
        for code in ("INTERNAL", "UNKNOWN", "UNAVAILABLE"):
            assert value(server, "grpc_server_handled_total", grpc_code=code) == 0
        assert value(server, "latentserve_queue_rows") == 0
        assert server.stop() == 0
    assert "Traceback" not in server.log


@pytest.mark.parametrize("transport", ["aio"], indirect=True)
def test_an_intentional_leak_is_detected(transport: str, exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *FLAGS, program=[str(LEAKY_SERVER)]) as server:
        samples, clients = soak(server, exports, CONTROL_S)
    assert [client.failure for client in clients if client.failure] == []
    verdict = report("control", samples, clients)
    assert any("memory grows" in problem for problem in verdict.problems), verdict
