import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest
from unit.client.fake_server import Failure

from latentserve_client.cli import main


@pytest.fixture
def run(server, capsys):
    """Return a function that runs one command and returns exit code, stdout and stderr."""

    def run(*argv):
        code = main([*map(str, argv), "--server", server.address])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "in.png"
    PIL.Image.new("L", (28, 28), 100).save(path)
    return path


def test_lists_models(run):
    code, out, err = run("models")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert " ".join(lines[0].split()) == "model version state kind image latent operations"
    assert "mnist-vae *" in lines[1]
    assert "encode, decode" in lines[1]
    assert "refused" in out
    assert "encode.onnx: sha256" in out


def test_describes_a_model(run):
    _, out, _ = run("models", "--model", "mnist-vae:1")
    assert "mnist-vae v1, ready" in out
    assert "PCA-16" in out
    assert "-90.5" in out


def test_lists_models_as_json(run):
    data = json.loads(run("models", "--json")[1])
    assert data["default_model"] == "mnist-vae"
    assert data["models"][0]["image"] == {"channels": 1, "height": 28, "width": 28}


def test_encode_and_decode_by_file(run, server, tmp_path):
    path = tmp_path / "z.npz"
    code, out, _ = run("encode", "--digits", "3,1", "--seed", "5", "--out", path)
    assert code == 0
    assert "digit 3" in out
    assert "mnist-vae v2 on CPUExecutionProvider: 2 images to latents of 16" in out
    assert f"wrote {path}" in out
    with np.load(path) as arrays:
        assert sorted(arrays) == ["labels", "latents", "log_variance"]
        assert arrays["labels"].tolist() == [3, 1]
        latents = arrays["latents"]
    assert server.last.seed == 5

    for out_path in (tmp_path / "x.npz", tmp_path / "x.png"):
        code, out, _ = run("decode", "--latents", path, "--out", out_path)
        assert code == 0
        assert out_path.exists()
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (2, 1, 28, 28)
        np.testing.assert_array_equal(arrays["latents"], latents)


def test_encode_as_json(run):
    data = json.loads(run("encode", "--digits", "2", "--json")[1])
    assert np.shape(data["latents"]) == np.shape(data["log_variance"]) == (2, 16)
    assert data["provider"] == "CPUExecutionProvider"
    assert data["seed"] is None


def test_reconstruct_files(run, server, png, tmp_path):
    out_path = tmp_path / "out.png"
    code, out, _ = run("reconstruct", png, png, "--model", "mnist-vae:2", "--out", out_path)
    assert code == 0
    assert str(png) in out
    assert "mean" in out
    assert server.last.model.version == 2
    assert list(server.last.images.encoded.files) == [png.read_bytes()] * 2
    with PIL.Image.open(out_path) as picture:
        assert picture.mode == "RGB"


def test_reconstruct_writes_arrays(run, tmp_path):
    run("reconstruct", "--digits", "4", "--out", tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["images", "inputs", "labels", "squared_error"]
        np.testing.assert_allclose(arrays["images"], arrays["inputs"] * 0.9, rtol=1e-6)


@pytest.mark.parametrize("source", ["digits", "file"])
def test_denoise_adds_noise(run, server, png, tmp_path, source):
    images = ["--digits", "2"] if source == "digits" else [png]
    path = tmp_path / "x.npz"
    args = ("denoise", *images, "--add-noise", "0.2", "--seed", "3", "--out", path)
    code, out, _ = run(*args)
    assert code == 0
    assert "PSNR" in out
    assert server.last.images.tensor.data_type == 1
    with np.load(path) as arrays:
        assert {"clean", "images", "noisy"} <= set(arrays)
        assert arrays["noisy"].min() >= 0
        assert arrays["noisy"].max() <= 1
        first = arrays["noisy"]
    run(*args)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["noisy"], first)


def test_denoise_images_without_added_noise(run, server, png, tmp_path):
    code, out, _ = run("denoise", png, "--out", tmp_path / "x.npz")
    assert code == 0
    assert "PSNR" not in out
    assert len(server.last.images.encoded.files) == 1
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["images", "noisy"]


def test_sample(run, server, tmp_path):
    code, out, _ = run(
        *("sample", "--count", "3", "--seed", "9", "--offset", "5", "--temperature", "0.7"),
        *("--out", tmp_path / "x.npz"),
    )
    assert code == 0
    assert "3 images from seed 9" in out
    assert (server.last.offset, round(server.last.temperature, 3)) == (5, 0.7)
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["images", "latents", "seed"]
        assert arrays["seed"] == 9
        np.testing.assert_allclose(arrays["latents"][:, 0], [0.05, 0.06, 0.07], rtol=1e-6)


def test_sample_uses_a_stream_above_the_limit_of_one_request(run, server, tmp_path):
    server.max_request_rows = 8
    code, _, _ = run("sample", "--count", "20", "--out", tmp_path / "x.npz")
    assert code == 0
    assert server.seen[-1].method == "SampleStream"
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (20, 1, 28, 28)
        np.testing.assert_allclose(arrays["latents"][:, 0], np.arange(20) / 100, rtol=1e-6)


def test_health(run, server):
    assert run("health")[:2] == (0, "SERVING\n")
    server.set_health("mnist-vae", "NOT_SERVING")
    assert run("health", "--model", "mnist-vae:2")[:2] == (1, "NOT_SERVING\n")
    assert json.loads(run("health", "--json")[1]) == {"service": "", "status": "SERVING"}
    code, _, err = run("health", "--model", "nope")
    assert code == 1
    assert "NOT_FOUND" in err


def test_reload_fails_where_a_version_is_refused(run, server):
    code, out, _ = run("reload", "mnist-ae", "mnist-vae")
    assert code == 1
    assert "loaded" in out
    assert "sha256" in out
    assert list(server.last.names) == ["mnist-ae", "mnist-vae"]


def test_prints_the_violations_of_a_request(run, server):
    server.failures.append(
        Failure("INVALID_ARGUMENT", "bad images", violations={"images": "expected 28x28"})
    )
    code, out, err = run("reconstruct", "--digits", "1")
    assert (code, out) == (1, "")
    assert err == "latentserve: INVALID_ARGUMENT: bad images\n  images: expected 28x28\n"


def test_reports_an_unavailable_server(server, capsys):
    server.stop()
    assert main(["models", "--server", server.address]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"latentserve: {server.address}: UNAVAILABLE")
    assert "Check that the server runs" in err
    assert main(["health", "--server", server.address]) == 1


def test_reports_unusable_files(run, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    np.savez(tmp_path / "pickled.npz", latents=np.array([{}]))
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    for argv, message in [
        (["encode", tmp_path / "nope.png"], "nope.png: No such file or directory"),
        (["encode", tmp_path], "is a folder"),
        (["encode", tmp_path / "notes.txt"], "notes.txt: not an image file"),
        (["denoise", tmp_path / "notes.txt", "--add-noise", "1"], "notes.txt: not an image file"),
        (["encode", "--mnist", tmp_path], "no t10k-images-idx3-ubyte"),
        (["decode", "--latents", tmp_path / "nope.npz"], "nope.npz: No such file"),
        (["decode", "--latents", tmp_path / "notes.txt"], "not a .npz file"),
        (["decode", "--latents", tmp_path / "cut.npz"], "not a .npz file"),
        (["decode", "--latents", tmp_path / "pickled.npz"], "not a .npz file of plain arrays"),
        (["decode", "--latents", tmp_path / "two.npz"], "no array 'latents'; it has a, b"),
    ]:
        code, out, err = run(*argv)
        assert (code, out) == (1, ""), argv
        assert message in err
        assert err.startswith("latentserve: ")
        assert len(err.splitlines()) == 1


def test_adding_noise_requires_files_of_equal_size(run, png, tmp_path):
    PIL.Image.new("L", (5, 5)).save(tmp_path / "small.png")
    code, _, err = run("denoise", png, tmp_path / "small.png", "--add-noise", "1")
    assert code == 1
    assert "different sizes" in err


def test_mnist_folder(run, server, tmp_path):
    from unit.client.test_digits import idx

    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), np.uint8)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(7, dtype=np.uint8)))
    code, out, _ = run("encode", "--mnist", tmp_path, "--start", "2", "--count", "3")
    assert code == 0
    assert "digit 4" in out
    assert server.last.images.tensor.data == images[2:5].tobytes()
    code, _, err = run("encode", "--mnist", tmp_path)
    assert code == 1
    assert "has 7 digits" in err


def test_wrong_usage(run, server, tmp_path):
    for argv, message in [
        (["encode"], "give exactly one of"),
        (["encode", "a.png", "--digits", "1"], "give exactly one of"),
        (["encode", "--digits", "0"], "there are 100"),
        (["encode", "--digits", "1", "--out", "x.jpg"], "must end in .png or .npz"),
        (["sample", "--out", tmp_path / "no" / "x.png"], "does not exist"),
        (["denoise", "--digits", "1", "--seed", "1"], "--add-noise"),
    ]:
        code, out, err = run(*argv)
        assert (code, out) == (2, ""), argv
        assert message in err
    assert not server.seen


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["paint"],
        ["sample", "--count", "0"],
        ["sample", "--seed", "-1"],
        ["sample", "--seed", "x"],
        ["sample", "--timeout-s", "0"],
        ["sample", "--timeout-s", "nan"],
        ["sample", "--model", "a:x"],
        ["decode"],
    ],
)
def test_the_parser_refuses_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: latentserve" in capsys.readouterr().err


def test_timeout_is_passed_on(run, server):
    run("sample", "--timeout-s", "3")
    assert 2 < server.seen[-1].time_remaining_s < 3.1
    run("reload", "--timeout-s", "7")
    assert 6 < server.seen[-1].time_remaining_s < 7.1


def test_interrupt_is_quiet():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        # A background shell ignores SIGINT in its jobs; this process must not inherit that.
        program = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from latentserve_client.__main__ import main; raise SystemExit(main())"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, "models", "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        # gRPC connects on another thread, while the main thread may still set up the call.
        connection, _ = silent.accept()
        with connection:
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_closed_pipe_is_no_error(server):
    command = [sys.executable, "-m", "latentserve_client", "models", "--server", server.address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 1


def test_resizes_files_with_resize(run, server, png, tmp_path):
    PIL.Image.new("RGBA", (50, 40), (10, 20, 30, 40)).save(tmp_path / "large.png")
    code, out, _ = run(
        *("reconstruct", png, tmp_path / "large.png", "--resize", "--out", tmp_path / "x.npz")
    )
    assert code == 0
    assert "large.png" in out
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["inputs"].shape == (2, 1, 28, 28)
    assert len(server.last.images.encoded.files) == 2
    assert run("reconstruct", "--digits", "2", "--resize")[0] == 0
