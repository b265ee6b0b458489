"""The command against a fake server: options, reports, exit codes."""

import csv
import json
import signal
import threading
import time

import numpy as np
import PIL.Image
import pytest
from unit.client.fake_server import Failure, FakeServer

from latentserve_client.cli import main
from latentserve_client.load import command
from latentserve_client.load.drive.run import Runner


class HookedServer(FakeServer):
    """A fake server that calls `before_sample` with each Sample request and its number."""

    samples = 0

    def before_sample(self, number, request):
        """Do nothing; tests replace it."""

    def Sample(self, request, context):  # noqa: N802 - named as in the .proto file
        self.samples += 1
        self.before_sample(self.samples, request)
        return super().Sample(request, context)


SHORT = ("--duration-s", "0.4", "--warm-up-s", "0.1", "--pool", "3")


@pytest.fixture
def server():
    server = HookedServer()
    yield server
    server.stop()


@pytest.fixture
def load(server, capsys):
    """Return a function that runs the command and returns exit code, stdout and stderr."""

    def load(*argv):
        code = main(["load", "--server", server.address, *SHORT, *map(str, argv)])
        out, err = capsys.readouterr()
        return code, out, err

    return load


def test_every_call_in_one_mix_as_json(load, server):
    mix = (
        "encode:rows=1|3:dtype=png,reconstruct=2:dtype=uint8:format=uint8,denoise:dtype=float16,"
        "decode:rows=2:dtype=float16,sample=3:count=4:format=png:latents=yes,stream:count=9,"
        "encode:draw=yes:model=mnist-vae@1,health,model:model=mnist-vae@1,models"
    )
    code, out, err = load("--mix", mix, "--json", "--validate", "100%", "--concurrency", 4)
    assert (code, err) == (0, "")
    report = json.loads(out)
    (run,) = report["runs"]
    labels = [kind["label"] for kind in run["kinds"]]
    assert labels[0] == "encode mnist-vae:2 rows=1|3 png"
    assert labels[-1] == "models"
    assert all(kind["calls"] > 0 for kind in run["kinds"])
    assert run["errors"] == 0
    assert run["validation"]["checked"] > 10
    assert run["validation"]["wrong"] == 0
    stream = run["kinds"][5]
    assert stream["first_message"]["mean_ms"] <= stream["latency"]["mean_ms"]
    assert run["kinds"][0]["timings"]["batch_rows"] == 8
    assert "timings" not in run["kinds"][-1]
    assert report["options"]["concurrency"] == 4
    assert report["versions"]["grpcio"]
    assert report["machine"]["cores"] > 0
    assert run["tester"]["cpu_us_per_call"] > 0
    assert {call.request.seed for call in server.seen if call.method == "SampleStream"} == {0, 1, 2}


def test_an_open_loop_writes_its_report_in_every_format(load, tmp_path):
    files = [tmp_path / f"report.{suffix}" for suffix in ("json", "csv", "html")]
    outs = [part for path in files for part in ("--out", path)]
    code, out, _ = load("--rate", "50-150", "--arrivals", "poisson", "--mix", "sample", *outs)
    assert code == 0
    assert "open loop, poisson arrivals, 50 to 150/s" in out
    assert "from actual send" in out
    report = json.loads(files[0].read_text())
    assert report["runs"][0]["load"]["segments"][0]["to_per_s"] == 150
    with files[1].open() as file:
        lines = list(csv.DictReader(file))
    assert [line["call"] for line in lines] == ["sample mnist-vae:2 rows=1", "all"]
    assert float(lines[1]["p99_ms"]) > 0
    page = files[2].read_text()
    assert page.count("<svg") == 3
    for outside in ("<script", "src=", "href=", "url(", "@import"):
        assert outside not in page


def test_a_sweep_finds_a_knee_and_plots_it(load, tmp_path):
    page = tmp_path / "sweep.html"
    code, out, _ = load(
        "--sweep", "concurrency=1,2", "--slo-p99-ms", 60_000, "--mix", "sample", "--out", page
    )
    assert code == 0
    assert "knee: concurrency 2 is the highest load that meets p99 <= 60000 ms" in out
    assert "The knee:" in out
    assert "Latency by throughput" in page.read_text()


def test_a_sweep_without_a_knee_fails(load):
    code, out, _ = load(
        "--sweep", "rate=20,40", "--refine", 0, "--slo-p99-ms", 0.0001, "--mix", "sample"
    )
    assert code == 1
    assert "NO KNEE" in out


def test_conditions_decide_the_exit_code(load):
    code, out, _ = load("--mix", "sample", "--fail-if", "errors>0", "--fail-if", "calls<1")
    assert code == 0
    assert "passed: not errors>0 (measured 0)" in out
    code, out, _ = load("--mix", "sample", "--fail-if", "calls>1")
    assert code == 1
    assert "FAILED: not calls>1" in out


def test_errors_are_counted_by_code_with_their_messages(load, server):
    def sometimes(number, request):
        if request.seed == 1:
            server.failures.append(Failure("INTERNAL", "out of luck"))

    server.before_sample = sometimes
    code, out, _ = load("--mix", "sample", "--validate", 0, "--concurrency", 1)
    assert code == 0
    assert "errors: INTERNAL" in out
    assert "out of luck" in out


def test_a_wrong_reply_fails_the_run(load, server):
    def swap(number, request):
        # Rows of another request, only under load.
        if number > 20 and number % 10 == 0:
            request.offset += 50

    server.before_sample = swap
    code, out, _ = load("--mix", "sample:count=2", "--validate", "100%")
    assert code == 1
    assert "WRONG REPLIES" in out
    assert "images: differs by up to" in out


def test_compares_with_a_baseline(load, tmp_path):
    old = tmp_path / "old.json"
    load("--mix", "sample", "--out", old)
    code, out, _ = load("--mix", "encode", "--baseline", old)
    assert code == 0
    assert "compared with the baseline" in out
    assert "the options of the baseline differ: mix: sample -> encode" in out


def test_ctrl_c_prints_the_report_so_far(load, monkeypatch):
    taken = Runner._take

    def interrupted(self):
        partials = taken(self)
        if sum(len(partial.records) for partial in partials) and not interrupted.done:
            interrupted.done = True
            signal.raise_signal(signal.SIGINT)
        return partials

    interrupted.done = False
    monkeypatch.setattr(Runner, "_take", interrupted)
    code, out, _ = load("--mix", "sample", "--duration-s", 1000)
    assert code == 130
    assert "INTERRUPTED: results until the interruption" in out


def test_calls_in_flight_at_the_end_are_completed(load, server):
    # Longer than the run: no call ends before the end of the run.
    server.before_sample = lambda number, _: time.sleep(0.8) if number > 4 else None
    code, out, _ = load("--mix", "sample", "--warm-up-s", 0, "--concurrency", 5, "--json")
    (run,) = json.loads(out)["runs"]
    assert (code, run["calls"], run["errors"]) == (0, 5, 0)
    assert run["rate_per_s"] == 0  # none of them ended in the measured time
    assert run["latency"]["p50_ms"] > 700


def test_several_processes_share_the_load(load, server):
    code, out, _ = load(
        "--mix", "sample:count=2", "--processes", 2, "--concurrency", 5, "--json", "--validate", 1
    )
    assert code == 0
    (run,) = json.loads(out)["runs"]
    assert run["calls"] > 0
    assert run["validation"]["checked"] > 0
    assert run["tester"]["cpu_s"] > 0


def test_real_images_are_sent(load, server, tmp_path):
    PIL.Image.fromarray(np.full((56, 56), 255, np.uint8)).save(tmp_path / "white.png")
    code, _, _ = load("--mix", "encode:dtype=uint8", "--images", tmp_path)
    assert code == 0
    tensor = server.last.images.tensor
    assert list(tensor.shape) == [1, 1, 28, 28]
    assert set(tensor.data) == {255}


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--mix", "paint"), 2, "unknown call 'paint'"),
        (("--mix", "encode:model=nope"), 1, "no model nope"),
        (("--mix", "encode:rows=65"), 1, "65 rows; mnist-vae:2 on this server accepts 1 to 64"),
        (("--mix", "encode:model=broken"), 1, "broken:1 is refused, not ready"),
        (("--rate", "x"), 2, "expected calls per second"),
        (("--rate", "5", "--concurrency", "2"), 2, "give only one of them"),
        (("--sweep", "rate=1", "--rate", "5"), 2, "--sweep sets the load"),
        (("--sweep", "threads=1"), 2, "expected concurrency=1,2,4,8"),
        (("--slo-p99-ms", "5"), 2, "requires --sweep"),
        (("--rate", "1-5", "--stable-within", "5%"), 2, "requires a constant load"),
        (("--fail-if", "p99>5"), 2, "requires a unit"),
        (
            ("--processes", "3", "--connections", "2"),
            2,
            "each process needs at least one connection",
        ),
        (("--processes", "3", "--concurrency", "2"), 2, "each process needs at least one call"),
        (("--images", "/nowhere"), 1, "/nowhere"),
        (("--out", "report.pdf"), 2, "the name must end in"),
        (("--out", "/nowhere/report.json"), 2, "does not exist"),
        (("--metrics-url", "http://127.0.0.1:1/metrics"), 1, "http://127.0.0.1:1/metrics"),
        (("--baseline", "/nowhere.json"), 1, "/nowhere.json"),
    ],
)
def test_invalid_options_are_reported_before_the_load(load, server, argv, code, said):
    found, out, err = load(*argv)
    assert (found, out) == (code, "")
    assert said in err
    assert not [call for call in server.seen if call.method == "Reconstruct"][4:]


def test_reports_an_unavailable_server(capsys):
    assert main(["load", "--server", "127.0.0.1:1", *SHORT]) == 1
    assert "127.0.0.1:1: UNAVAILABLE" in capsys.readouterr().err


def test_a_request_that_the_server_refuses_fails_before_the_load(load, server):
    server.before_sample = lambda *_: server.failures.append(
        Failure("FAILED_PRECONDITION", "not today")
    )
    code, out, err = load("--mix", "sample")
    assert (code, out) == (1, "")
    assert "not today" in err


def test_a_run_without_a_successful_call_fails(load, server, monkeypatch):
    original = command.open_processes
    trouble = threading.Event()

    def after_the_trial(setup):
        opened = original(setup)
        trouble.set()
        return opened

    monkeypatch.setattr(command, "open_processes", after_the_trial)

    def failing(number, request):
        if trouble.is_set():
            server.failures.append(Failure("UNAVAILABLE", "draining"))

    server.before_sample = failing
    code, out, _ = load("--mix", "sample")
    assert code == 1
    assert "NO CALL SUCCEEDED" in out
    assert "errors: UNAVAILABLE" in out
