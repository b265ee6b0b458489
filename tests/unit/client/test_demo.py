import contextlib
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from unit.client.fake_server import Failure, fake_model

from latentserve.v1 import model_service_pb2 as models_pb2
from latentserve_client import Client, ModelList, demo
from latentserve_client._server_process import ServerFailed, ServerProcess, free_address

SERVE = """
import signal, sys, threading
sys.path.insert(0, {tests!r})
from unit.client.fake_server import FakeServer
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: {on_term})
server = FakeServer({address!r})
print("serving", flush=True)
stopping.wait()
server.stop()
"""


def script(address, on_term="stopping.set()"):
    tests = str(Path(__file__).parents[2])
    return [sys.executable, "-c", SERVE.format(tests=tests, address=address, on_term=on_term)]


def test_shows_all_calls_of_a_running_server(server, tmp_path, capsys):
    out = tmp_path / "demo.png"
    assert demo.main(["--server", server.address, "--out", str(out)]) == 0
    methods = [seen.method for seen in server.seen]
    five = ["Encode", "Decode", "Reconstruct", "Denoise", "Sample"]
    assert methods[:6] == ["ListModels", *five]
    assert set(methods[6:]) == {"Reconstruct", "Sample"}
    text = capsys.readouterr().out
    for word in ("Encode", "Decode", "Reconstruct", "Denoise", "Sample", "PSNR", "MSE", str(out)):
        assert word in text
    assert "denoise --digits 10 --add-noise 0.5 --model mnist-vae" in text
    with PIL.Image.open(out) as picture:
        assert picture.width > 800
        assert picture.height > 800


def test_sends_the_first_ten_digits(server):
    with Client(server.address) as client:
        steps = demo.run_calls(client, client.models())
    headings = [step.section.heading for step in steps]
    assert headings[:5] == ["Encode", "Decode", "Reconstruct", "Denoise", "Sample"]
    sent = {seen.method: seen.request for seen in server.seen}
    assert list(sent["Encode"].images.tensor.shape) == [10, 1, 28, 28]
    assert sent["Sample"].seed == demo.SAMPLE_SEED
    noisy = np.frombuffer(sent["Denoise"].images.tensor.data, np.float32)
    assert noisy.min() >= 0
    assert noisy.max() <= 1


def test_shows_the_newest_version_of_every_model(server):
    generator = fake_model("digits-gan", 3)
    del generator.operations[:]
    generator.operations.append(models_pb2.OPERATION_SAMPLE)
    server.models.append(generator)
    with Client(server.address) as client:
        steps = demo.run_calls(client, client.models())
    encoders, generators = steps[5:]
    assert [line[:2] for line in encoders.lines] == [("Reconstruct", "mnist-vae v2")]
    assert [row.caption for row in encoders.section.rows] == ["digits", "mnist-vae"]
    assert [line[:2] for line in generators.lines] == [
        ("Sample", "digits-gan v3"),
        ("Sample", "mnist-vae v2"),
    ]


def test_leaves_out_what_no_model_can_do(server):
    server.models = [fake_model("digits", 1)]
    del server.models[0].operations[2:]
    with Client(server.address) as client:
        steps = demo.run_calls(client, client.models())
    assert [step.section.heading for step in steps] == ["Encode", "Decode"]


def test_chooses_the_favourite_else_the_newest_that_can(server):
    with Client(server.address) as client:
        models = client.models()
    assert demo.choose_model(models, ("encode",), "mnist-vae").ref == "mnist-vae:2"
    assert demo.choose_model(models, ("encode",), "mnist-ae").ref == "mnist-vae:2"
    assert demo.choose_model(ModelList((), ""), ("encode",), "x") is None
    refused = ModelList((models.models[-1],), "")
    assert demo.choose_model(refused, (), "broken", any_size=True) is None


def test_says_that_there_is_no_model(server, capsys):
    server.models = []
    assert demo.main(["--server", server.address]) == 1
    assert "no model" in capsys.readouterr().err


def test_says_what_failed(server, capsys, tmp_path):
    server.failures.append(Failure("INTERNAL", "broken"))
    assert demo.main(["--server", server.address, "--out", str(tmp_path / "x.png")]) == 1
    assert "INTERNAL: broken" in capsys.readouterr().err
    assert demo.main(["--exports", str(tmp_path / "nope")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert demo.main(["--out", str(tmp_path / "nope" / "x.png")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_server_process_serves_and_stops():
    address = free_address()
    with ServerProcess(script(address)) as process, Client(address) as client:
        process.wait_until_serving(client)
        assert client.sample().seed == 4711
        assert process.stop() == 0
        assert process.tail() == "    serving"


def test_server_process_is_stopped_by_an_error():
    address = free_address()
    client = Client(address)
    process = ServerProcess(script(address))
    with contextlib.suppress(KeyError), client, process:
        process.wait_until_serving(client)
        raise KeyError
    assert process._process.poll() == 0


def test_server_process_that_dies_shows_its_last_words():
    with (
        ServerProcess([sys.executable, "-c", "raise SystemExit('no models')"]) as process,
        Client(free_address()) as client,
        pytest.raises(ServerFailed, match=r"(?s)exited with code 1.*no models"),
    ):
        process.wait_until_serving(client)


def test_server_process_that_never_serves_is_given_up():
    with (
        ServerProcess([sys.executable, "-c", "import time; time.sleep(60)"]) as process,
        Client(free_address()) as client,
        pytest.raises(ServerFailed, match=r"within 0\.3 s"),
    ):
        process.wait_until_serving(client, limit_s=0.3)


def test_server_process_that_does_not_stop_is_killed():
    address = free_address()
    with ServerProcess(script(address, on_term="None")) as process, Client(address) as client:
        process.wait_until_serving(client)
        with pytest.raises(ServerFailed, match="did not stop"):
            process.stop(limit_s=0.2)
        assert process._process.poll() is not None
