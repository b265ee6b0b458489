"""The load tester against the real server, on tiny models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from latentserve_client.cli import main
from latentserve_client.load.__main__ import main as load_temporary_server
from served import BEFORE_ANY_TRANSPORT, Server, served

SHORT = ("--duration-s", "0.6", "--warm-up-s", "0.2", "--pool", "4", "--json")


@pytest.fixture(scope="module")
def measured(
    transport: str, tiny_exports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a metrics endpoint."""
    log = tmp_path_factory.mktemp("measured") / "log.txt"
    flags = ("--default-model", "tiny-vae", "--metrics-listen", "127.0.0.1:0")
    with served(tiny_exports, log, *flags) as running:
        yield running


def load(server: Server, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict]:
    code = main(["load", "--server", server.address, *SHORT, *argv])
    out, err = capsys.readouterr()
    assert out, err
    return code, json.loads(out)


@pytest.mark.parametrize("tester", ["cq", "aio"])
def test_replies_under_load_equal_the_references(measured, capsys, tester):
    """All kinds of calls concurrently: no call gets the rows of another."""
    mix = (
        "encode=2:rows=1-5,encode:draw=yes,reconstruct=2:rows=1|4,denoise:model=tiny-denoising:rows=3:format=uint8,"
        "decode:rows=2,sample=2:count=4:latents=yes,stream:count=20:chunk=6,health,models,"
        "reconstruct:model=tiny-autoencoder:dtype=png:format=png"
    )
    code, report = load(
        measured, capsys, "--mix", mix, "--validate", "100%", "--concurrency", "12",
        "--transport", tester,
    )  # fmt: skip
    (run,) = report["runs"]
    assert report["tester"]["transport"] == tester
    assert run["errors"] == 0, run["codes"]
    assert (code, run["validation"]["wrong"]) == (0, 0)
    assert run["validation"]["checked"] > 50
    assert all(kind["calls"] for kind in run["kinds"])
    assert max(kind["timings"]["batch_rows"] for kind in run["kinds"] if "timings" in kind) > 2


def test_an_open_loop_reports_the_metrics_of_the_server(measured, capsys):
    url = re.search(r"metrics are at (http://\S+)", measured.log)
    assert url
    code, report = load(
        measured, capsys, "--mix", "reconstruct:rows=2", "--rate", "50", "--metrics-url", url[1]
    )
    (run,) = report["runs"]
    assert code == 0
    assert run["calls"] == 30  # 50 per second for 0.6 s, independent of the server
    assert run["server"]["mean_batch_rows"] >= 2
    assert run["server"]["cpu_us_per_call"] > 0
    assert run["server"]["memory_mib_after"] > 10
    counted = "latentserve_batch_rows_sum"
    assert any(series.startswith(counted) for series in run["server"]["changes"])


def test_an_overload_is_reported_as_such(tiny_exports, tmp_path, capsys):
    flags = ("--default-model", "tiny-vae", "--queue-rows", "8", "--max-request-rows", "8")
    with served(tiny_exports, tmp_path / "log.txt", *flags, delay_s=0.05) as slow:
        code, report = load(
            slow, capsys, "--mix", "reconstruct:rows=8", "--concurrency", "8",
            "--fail-if", "errors>0", "--validate", "0",
        )  # fmt: skip
    (run,) = report["runs"]
    assert code == 1
    assert set(run["codes"]) == {"RESOURCE_EXHAUSTED"}
    assert run["latency"]["p50_ms"] >= 50  # of successful calls
    assert report["conditions"][0]["failed"]


@BEFORE_ANY_TRANSPORT
def test_make_load_starts_a_server(transport, tiny_exports, capsys):
    argv = ["--exports", str(tiny_exports), "--model", "tiny-vae", *SHORT, "--device-typo"]
    with pytest.raises(SystemExit):  # unknown options are refused
        load_temporary_server(argv)
    capsys.readouterr()
    argv = ["--exports", str(tiny_exports), "--model", "tiny-vae", *SHORT]
    assert load_temporary_server([*argv, "--mix", "reconstruct,stream:count=20"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["runs"][0]["errors"] == 0
    assert report["runs"][0]["server"]["batches"] > 0
    load_temporary_server(["--exports", str(tiny_exports / "nothing"), *SHORT])
    assert "the server exited" in capsys.readouterr().err
