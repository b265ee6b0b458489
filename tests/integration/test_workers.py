"""Tests of several workers on one port: replacement, drain, reload, rolling restart."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tiny_models
from latentserve.v1 import generative_service_pb2 as pb
from latentserve.v1 import model_service_pb2 as models_pb
from latentserve_client import Client, LatentserveError
from scraped import scrape, value
from served import BEFORE_ANY_TRANSPORT, Server, launched, ref, served

TIMEOUT_S = 30.0
# The kernel chooses a worker by a hash of the connection. With this number of connections, all
# are on one of two workers with a probability of 2 in 2^33.
CONNECTIONS = 33
TWO = ("--workers", "2")
SAMPLE = {"grpc_service": "latentserve.v1.GenerativeService", "grpc_method": "Sample"}


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    root = tmp_path / "exports"
    tiny_models.write_model(root, "tiny-vae")
    return root


def eventually(condition: Callable[[], object], what: str = "") -> None:
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, what or "the condition did not become true"
        time.sleep(0.05)


def sample_over_new_connections(server: Server, count: int = CONNECTIONS) -> list[Any]:
    replies = []
    for _ in range(count):
        with server.generative() as stub:
            request = pb.SampleRequest(model=ref("tiny-vae"), count=1, seed=1)
            replies.append(stub.Sample(request, timeout=TIMEOUT_S))
    return replies


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Load:
    """Sequential calls of the Python client on each of several connections."""

    def __init__(self, address: str, clients: int = 6) -> None:
        self.failures: list[str] = []
        self.completed = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._address = address
        self._threads = [threading.Thread(target=self._call) for _ in range(clients)]

    def _call(self) -> None:
        with Client(self._address, timeout_s=TIMEOUT_S, model="tiny-vae") as client:
            while not self._stop.is_set():
                try:
                    client.sample(2, seed=1)
                except LatentserveError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    with self._lock:
                        self.completed += 1

    def wait_for(self, calls: int) -> None:
        """Wait until this number of additional calls completed."""
        target = self.completed + calls
        eventually(lambda: self.completed >= target or self.failures, "no call completes")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def test_both_workers_serve_one_port_and_their_metrics_are_aggregated(
    exports: Path, tmp_path: Path
) -> None:
    flags = (*TWO, "--metrics-listen", "127.0.0.1:0", "--log-format", "json")
    with served(exports, tmp_path / "log", *flags, "--log-requests", "yes") as server:
        sample_over_new_connections(server)
        with server.generative() as stub, pytest.raises(grpc.RpcError):
            stub.Sample(pb.SampleRequest(count=0), timeout=TIMEOUT_S)
        eventually(lambda: server.log.count('"code": "OK"') >= CONNECTIONS)
        assert value(server, "grpc_server_handled_total", **SAMPLE, grpc_code="OK") == CONNECTIONS
        assert value(server, "grpc_server_started_total", **SAMPLE) == CONNECTIONS + 1
        assert value(server, "latentserve_batch_rows_sum", model="tiny-vae") == CONNECTIONS
        assert value(server, "latentserve_model_info", model="tiny-vae") == 1
        assert value(server, "latentserve_workers", state="serving") == 2
        processes = {labels["worker"] for labels, _ in scrape(server)["process_cpu_seconds_total"]}
        assert processes == {"0", "1", "2"}
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]
    assert {line["worker"] for line in lines if line.get("code") == "OK"} == {1, 2}
    assert {line["worker"] for line in lines} == {0, 1, 2}
    (failed,) = [line for line in lines if line.get("code") == "INVALID_ARGUMENT"]
    assert failed["method"] == "/latentserve.v1.GenerativeService/Sample"
    assert failed["request_id"] in failed["message"]
    assert lines[-1]["message"] == "stopped: all 2 workers ended in order"


def test_every_worker_serves_health(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO) as server:
        for service in ("", "tiny-vae", "latentserve.v1.GenerativeService"):
            for _ in range(12):
                with server.channel() as channel:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    request = health_pb2.HealthCheckRequest(service=service)
                    reply = stub.Check(request, timeout=TIMEOUT_S)
                assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_a_worker_killed_under_load_fails_no_call_and_is_replaced(
    exports: Path, tmp_path: Path
) -> None:
    flags = (*TWO, "--metrics-listen", "127.0.0.1:0")
    with served(exports, tmp_path / "log", *flags) as server, Load(server.address) as load:
        load.wait_for(100)
        handled = value(server, "grpc_server_handled_total", **SAMPLE, grpc_code="OK")
        victim = server.worker_pids()[1]
        os.kill(victim, signal.SIGKILL)
        server.wait_for_log(rf"worker 1 \(process {victim}\) was killed by SIGKILL")
        eventually(lambda: server.worker_pids()[1] != victim, "the worker was not replaced")
        load.wait_for(100)
        load.stop()
        assert load.failures == []
        assert value(server, "latentserve_worker_restarts_total", worker="1", cause="signal") == 1
        eventually(lambda: value(server, "latentserve_workers", state="serving") == 2)
        # The counts of the killed worker are kept.
        total = value(server, "grpc_server_handled_total", **SAMPLE, grpc_code="OK")
        assert total >= handled + 100
        assert server.stop() == 0


def test_a_stop_under_load_drops_nothing(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO, delay_s=0.3) as server:
        with contextlib.ExitStack() as stack:
            stubs = [stack.enter_context(server.generative()) for _ in range(8)]
            calls = [
                stub.Sample.future(pb.SampleRequest(count=3), timeout=TIMEOUT_S) for stub in stubs
            ]
            streams = [
                stub.SampleStream(pb.SampleStreamRequest(count=3, chunk_rows=1), timeout=TIMEOUT_S)
                for stub in stubs
            ]
            for stream in streams:
                next(stream)
            server.process.terminate()
            assert [len(list(stream)) for stream in streams] == [2] * 8
            assert [call.result().images.tensor.shape[0] for call in calls] == [3] * 8
        assert server.process.wait(TIMEOUT_S) == 0
    assert server.log.count("stopped: every call was completed") == 2
    assert "stopped: all 2 workers ended in order" in server.log.splitlines()[-1]
    assert "Traceback" not in server.log


def test_a_signal_to_the_whole_process_group_is_one_signal(exports: Path, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C, and systemd SIGTERM, to every process."""
    with served(exports, tmp_path / "log", *TWO, delay_s=0.5) as server:
        with server.generative() as stub:
            request = pb.SampleStreamRequest(count=3, chunk_rows=1)
            stream = stub.SampleStream(request, timeout=TIMEOUT_S)
            next(stream)
            for pid in (*server.worker_pids().values(), server.process.pid):
                os.kill(pid, signal.SIGTERM)
            assert len(list(stream)) == 2
        assert server.process.wait(TIMEOUT_S) == 0
    assert server.log.count("stopped: every call was completed") == 2


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO) as server, Load(server.address) as load:
        load.wait_for(50)
        drained = server.worker_pids()[2]
        os.kill(drained, signal.SIGTERM)
        server.wait_for_log(rf"worker 2 \(process {drained}\) ended with exit status 0")
        eventually(lambda: server.worker_pids()[2] != drained, "the worker was not replaced")
        load.wait_for(50)
        load.stop()
        assert load.failures == []
        assert server.stop() == 0


def test_a_second_signal_stops_at_once(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO, "--grace-s", "600", delay_s=1.0) as server:
        with server.generative() as stub:
            stream = stub.SampleStream(
                pb.SampleStreamRequest(count=500, chunk_rows=1), timeout=TIMEOUT_S
            )
            next(stream)
            server.process.terminate()
            server.wait_for_log("finish the calls in flight")
            next(stream)
            server.process.terminate()
            with pytest.raises(grpc.RpcError) as caught:
                list(stream)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert server.process.wait(TIMEOUT_S) == 0
    assert "stopped: calls were cut off by a second signal" in server.log.splitlines()[-1]


def test_a_rolling_restart_under_load_fails_no_call(exports: Path, tmp_path: Path) -> None:
    flags = (*TWO, "--reuse-port", "yes")
    with (
        served(exports, tmp_path / "log", *flags) as old,
        Load(old.address) as load,
    ):
        load.wait_for(50)
        with served(exports, tmp_path / "log2", *flags, "--listen", old.address) as new:
            load.wait_for(50)
            old.process.terminate()
            assert old.process.wait(TIMEOUT_S) == 0
            load.wait_for(50)
            load.stop()
            assert load.failures == []
            assert new.stop() == 0


def test_a_rolling_restart_works_for_a_single_process(exports: Path, tmp_path: Path) -> None:
    flags = ("--reuse-port", "yes")
    with served(exports, tmp_path / "log", *flags) as old, Load(old.address, clients=3) as load:
        load.wait_for(30)
        with served(exports, tmp_path / "log2", *flags, "--listen", old.address):
            old.process.terminate()
            assert old.process.wait(TIMEOUT_S) == 0
            load.wait_for(30)
            load.stop()
    assert load.failures == []


def reload(server: Server, *names: str) -> dict[tuple[str, int], str]:
    with server.models() as stub:
        reply = stub.ReloadModels(models_pb.ReloadModelsRequest(names=names), timeout=TIMEOUT_S)
    name = models_pb.ReloadOutcome.Action.Name
    return {(o.name, o.version): name(o.action) for o in reply.outcomes}


def test_a_reload_by_rpc_or_signal_reaches_every_worker(exports: Path, tmp_path: Path) -> None:
    def versions() -> set[int]:
        return {reply.served_by.version for reply in sample_over_new_connections(server)}

    with served(exports, tmp_path / "log", *TWO) as server:
        tiny_models.write_model(exports, "tiny-vae", version=2)
        assert versions() == {1}
        assert reload(server) == {
            ("tiny-vae", 1): "ACTION_UNCHANGED",
            ("tiny-vae", 2): "ACTION_LOADED",
        }
        assert versions() == {2}
        with pytest.raises(grpc.RpcError) as caught:
            reload(server, "tiny-dog")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert "Models: tiny-vae" in caught.value.details()
        shutil.rmtree(exports / "tiny-vae" / "2")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(r"reloaded by 2 workers: .*tiny-vae version 2 removed")
        assert versions() == {1}


def test_workers_do_not_outlive_a_killed_supervisor(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO) as server:
        pids = server.worker_pids().values()
        assert len(pids) == 2
        assert all(map(is_running, pids))
        server.process.kill()
        server.process.wait(TIMEOUT_S)
        eventually(lambda: not any(map(is_running, pids)), "a worker is left")
    assert server.log.count("the supervisor has exited") == 2
    assert server.log.count("stopped: every call was completed") == 2


def test_a_stop_while_the_models_load_ends_every_process(exports: Path, tmp_path: Path) -> None:
    with launched(exports, tmp_path / "log", *TWO, warm_up_delay_s=1.0) as server:
        server.wait_for_log("--device auto")
        assert server.stop() == 0
    assert "stopped: all 2 workers ended in order" in server.log.splitlines()[-1]


def test_the_port_is_closed_until_a_worker_can_serve(exports: Path, tmp_path: Path) -> None:
    """Otherwise, a worker that is still loading would get calls."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = (*TWO, "--listen", address)
    with launched(exports, tmp_path / "log", *flags, warm_up_delay_s=1.0) as server:
        server.address = address
        refused = 0
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            try:
                (reply,) = sample_over_new_connections(server, 1)
                break
            except grpc.RpcError as error:
                if "failed to connect" not in str(error.details()).lower():
                    raise
                refused += 1
                time.sleep(0.05)
        assert reply.served_by.name == "tiny-vae"
        assert refused > 0


@BEFORE_ANY_TRANSPORT
def test_a_busy_port_is_an_error_unless_it_is_shared(exports: Path, tmp_path: Path) -> None:
    with served(exports, tmp_path / "log", *TWO) as several:
        for flags in (TWO, ()):
            listen = ("--listen", several.address)
            with launched(exports, tmp_path / "log2", *flags, *listen) as second:
                assert second.process.wait(TIMEOUT_S) == 2
                assert f"--listen {several.address} cannot be used: the port" in second.log
                assert "Traceback" not in second.log
    with (
        served(exports, tmp_path / "log", "--listen", several.address) as single,
        launched(exports, tmp_path / "log2", *TWO, "--listen", single.address) as second,
    ):
        assert second.process.wait(TIMEOUT_S) == 2
        assert "the port is taken" in second.log


@BEFORE_ANY_TRANSPORT
def test_a_permanent_error_ends_the_supervisor_with_the_reason_as_last_line(
    exports: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    table: list[tuple[Path, tuple[str, ...], int, str]] = [
        (exports, ("--default-model", "tiny-vea"), 2, "does not have this model"),
        (exports, ("--metrics-listen", "192.0.2.1:0"), 2, "--metrics-listen 192.0.2.1:0 cannot"),
        (tmp_path / "empty", (), 3, "no model can be served"),
    ]
    for root, flags, status, message in table:
        with launched(root, tmp_path / "log", *TWO, *flags) as server:
            assert server.process.wait(TIMEOUT_S) == status
            assert message in server.log.splitlines()[-1], server.log
            assert "Traceback" not in server.log


DYING = """
import sys
from functools import partial
from latentserve_server.observability import log_format
from latentserve_server.config import read_settings
from latentserve_server.supervisor.restart_policy import RestartPolicy
from latentserve_server.supervisor.control_loop import supervise
log_format.configure("readable", "info", worker=0)
restarts = partial(RestartPolicy, first_delay_s=0.02, limit=3)
worker = [sys.executable, "-c", "import sys; sys.exit(1)"]
sys.exit(supervise(read_settings(sys.argv[1:]), worker, restarts))
"""


@BEFORE_ANY_TRANSPORT
def test_workers_that_die_again_and_again_end_it(exports: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", DYING, "--exports", str(exports), "--listen", "127.0.0.1:0", *TWO],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 4
    assert "it restarts in 0.04 s" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert "giving up: worker" in last
    assert "died 3 times in a row" in last
    assert "ended with exit status 1" in last


def test_a_stuck_worker_is_replaced_where_that_is_wanted(exports: Path, tmp_path: Path) -> None:
    flags = (*TWO, "--watchdog-s", "0.5", "--watchdog-exit", "yes", "--grace-s", "0.5")
    with served(exports, tmp_path / "log", *flags, delay_s=60.0) as server:
        before = server.worker_pids()
        with server.generative() as stub:
            call = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
            match = server.wait_for_log(r"worker (\d) \(process \d+\) ended with exit status 6")
            assert call.exception().code() == grpc.StatusCode.UNAVAILABLE
        number = int(match.group(1))
        eventually(lambda: server.worker_pids()[number] != before[number])
        assert "tiny-vae version 1 is stuck" in server.log
        other = 3 - number
        assert server.worker_pids()[other] == before[other]


@BEFORE_ANY_TRANSPORT
def test_a_frozen_worker_is_replaced_where_that_is_wanted(exports: Path, tmp_path: Path) -> None:
    flags = (*TWO, "--watchdog-s", "2", "--watchdog-exit", "yes", "--metrics-listen", "127.0.0.1:0")
    with served(exports, tmp_path / "log", *flags) as server:
        frozen = server.worker_pids()[2]
        os.kill(frozen, signal.SIGSTOP)
        assert value(server, "latentserve_workers", state="serving") == 2
        server.wait_for_log(rf"worker 2 \(process {frozen}\) has not replied")
        eventually(lambda: server.worker_pids()[2] != frozen)
        assert value(server, "latentserve_worker_restarts_total", worker="2") == 1
        assert server.stop() == 0


@pytest.fixture
def slow(exports: Path, tmp_path: Path) -> Iterator[Server]:
    flags = ("--watchdog-s", "0.4", "--metrics-listen", "127.0.0.1:0")
    with served(exports, tmp_path / "log", *flags, delay_s=3.0) as server:
        yield server


def test_health_is_off_while_an_engine_is_stuck_and_on_again_after(slow: Server) -> None:
    def status(service: str) -> int:
        with slow.channel() as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            found: int = stub.Check(request, timeout=TIMEOUT_S).status
        return found

    off = {"", "tiny-vae", "latentserve.v1.GenerativeService"}
    serving = health_pb2.HealthCheckResponse.SERVING
    assert all(status(service) == serving for service in off)
    with slow.generative() as stub:
        call = stub.Sample.future(pb.SampleRequest(count=3), timeout=TIMEOUT_S)
        slow.wait_for_log("sample of 3 rows is running, 0 rows are queued. Health is NOT_SERVING")
        for service in off:
            eventually(
                lambda service=service: (
                    status(service) == health_pb2.HealthCheckResponse.NOT_SERVING
                )
            )
        assert status("latentserve.v1.ModelService") == serving
        assert value(slow, "latentserve_stalled_seconds", model="tiny-vae") >= 0.4
        call.result()
    slow.wait_for_log("tiny-vae version 1 is no longer stuck")
    for service in off:
        eventually(lambda service=service: status(service) == serving)


def test_a_stuck_server_of_one_process_ends_where_that_is_wanted(
    exports: Path, tmp_path: Path
) -> None:
    flags = ("--watchdog-s", "0.5", "--watchdog-exit", "yes", "--grace-s", "0.5")
    with (
        served(exports, tmp_path / "log", *flags, delay_s=60.0) as server,
        server.generative() as stub,
    ):
        call = stub.Sample.future(pb.SampleRequest(count=1), timeout=TIMEOUT_S)
        assert server.process.wait(TIMEOUT_S) == 6
        assert call.exception().code() == grpc.StatusCode.UNAVAILABLE
    assert "an engine was stuck" in server.log.splitlines()[-1]
