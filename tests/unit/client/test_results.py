import numpy as np

from latentserve_client import DecodeResult, ServedBy, Timings
from latentserve_client._results import to_uint8

SERVED = {"served_by": ServedBy("m", 1, "", "cpu"), "timings": Timings(0, 0, 1)}


def test_rounds_as_the_server_does():
    x = np.array([-1, 0, 0.5 / 255, 1.5 / 255, 2.5 / 255, 1, 2], np.float32)
    np.testing.assert_array_equal(to_uint8(x), [0, 0, 0, 2, 2, 255, 255])
    assert to_uint8(x.astype(np.float16)).dtype == np.uint8


def test_colour_images_survive_png():
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4), np.uint8)
    result = DecodeResult(received=x, **SERVED)
    assert [(image.mode, image.size) for image in result.pil()] == [("RGB", (4, 5))] * 2
    back = DecodeResult(received=result.files, **SERVED)
    np.testing.assert_array_equal(back.images, x)
    assert back.files is result.files
    assert "received" not in repr(back)
