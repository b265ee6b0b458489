"""Tests of the conversion and validation of tensors and image files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentserve.v1 import tensor_pb2 as pb
from latentserve.v1.generative_service_pb2 import DecodeResponse, EncodeResponse
from latentserve_server.codec import tensors
from latentserve_server.errors import InvalidRequest
from latentserve_server.manifest.reader import ImageSpec

HEIGHT, WIDTH = 4, 6  # not square: a transposed image must not pass
GREY = ImageSpec(1, HEIGHT, WIDTH)
RGB = ImageSpec(3, HEIGHT, WIDTH)
DIM = 3
MAX_ROWS = 4

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pixels(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def tensor(array: np.ndarray[Any, Any], data_type: int | None = None) -> pb.Tensor:
    types = {"f4": 1, "f2": 2, "u1": 3}
    chosen = types[array.dtype.str[1:]] if data_type is None else data_type
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    return pb.Tensor(data_type=chosen, shape=array.shape, data=little_endian.tobytes())


def grey_rows(rows: int = 1, value: float = 0.5) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((rows, *GREY.shape), value, dtype=np.float32)


def image_file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **options)
    return out.getvalue()


def encoded(*files: bytes) -> pb.Images:
    return pb.Images(encoded=pb.EncodedImages(files=files))


def decode(
    images: pb.Images, spec: ImageSpec = GREY, allowed: tuple[float, float] = tensors.UNIT_RANGE
) -> tensors.Rows:
    if images.WhichOneof("form") != "tensor":
        return tensors.file_rows(images, spec, max_rows=MAX_ROWS)
    data = images.tensor.data
    layout = tensors.image_layout(images.tensor, len(data), spec, max_rows=MAX_ROWS)
    return tensors.image_rows(layout, data, 0, allowed=allowed)


def decode_latents(latents: pb.Tensor, dim: int = DIM) -> tensors.Rows:
    layout = tensors.latent_layout(latents, len(latents.data), dim, max_rows=MAX_ROWS)
    return tensors.latent_rows(layout, latents.data, 0)


def encode_images(array: np.ndarray[Any, Any], form: int) -> pb.Images:
    """Return the images of a reply that has only images, as a client reads them."""
    pieces: list[Any] = list(tensors.encode_images(1, array, form))
    return DecodeResponse.FromString(b"".join(pieces)).images


def encode_tensor(array: np.ndarray[Any, Any]) -> pb.Tensor:
    pieces: list[Any] = list(tensors.encode_tensor(1, array))
    return EncodeResponse.FromString(b"".join(pieces)).latents


def violation_of(call: Callable[[], object]) -> tuple[str, str]:
    """Return the only field violation of a refused call; the message must have both its parts."""
    with pytest.raises(InvalidRequest) as refused:
        call()
    (violation,) = refused.value.violations
    assert refused.value.code == "INVALID_ARGUMENT"
    assert violation.field in refused.value.message
    assert violation.description in refused.value.message
    return violation.field, violation.description


# --- tensors that are refused -----------------------------------------------------------------

IMAGE_SHAPE = f"expected [n, 1, {HEIGHT}, {WIDTH}]"
BAD_IMAGE_TENSORS = {
    "no data type": (
        tensor(grey_rows(), data_type=0),
        "images.tensor.data_type",
        ["DATA_TYPE_UNSPECIFIED was sent", "DATA_TYPE_FLOAT32", "DATA_TYPE_UINT8"],
    ),
    "a data type of the future": (
        tensor(grey_rows(), data_type=99),
        "images.tensor.data_type",
        ["99 was sent", "DATA_TYPE_FLOAT16"],
    ),
    "no shape": (
        pb.Tensor(data_type=1, data=b"1234"),
        "images.tensor.shape",
        ["[] was sent", IMAGE_SHAPE],
    ),
    "one image without its batch dimension": (
        tensor(grey_rows()[0]),
        "images.tensor.shape",
        [f"[1, {HEIGHT}, {WIDTH}] was sent", IMAGE_SHAPE],
    ),
    "one dimension too many": (
        tensor(grey_rows()[np.newaxis]),
        "images.tensor.shape",
        [f"[1, 1, 1, {HEIGHT}, {WIDTH}] was sent", IMAGE_SHAPE],
    ),
    "height and width swapped": (
        tensor(grey_rows().transpose(0, 1, 3, 2)),
        "images.tensor.shape",
        [f"[1, 1, {WIDTH}, {HEIGHT}] was sent", IMAGE_SHAPE],
    ),
    "channels last": (
        tensor(grey_rows().transpose(0, 2, 3, 1)),
        "images.tensor.shape",
        [f"[1, {HEIGHT}, {WIDTH}, 1] was sent", IMAGE_SHAPE],
    ),
    "the wrong number of channels": (
        tensor(np.zeros((1, 3, HEIGHT, WIDTH), dtype=np.float32)),
        "images.tensor.shape",
        [f"[1, 3, {HEIGHT}, {WIDTH}] was sent", IMAGE_SHAPE],
    ),
    "thousands of dimensions": (
        pb.Tensor(data_type=1, shape=[1] * 5000, data=b""),
        "images.tensor.shape",
        ["...", IMAGE_SHAPE],
    ),
    "zero rows": (
        tensor(grey_rows(0)),
        "images.tensor.shape",
        ["0 rows were sent", f"expected 1 to {MAX_ROWS}"],
    ),
    "one row too many": (
        tensor(grey_rows(MAX_ROWS + 1)),
        "images.tensor.shape",
        [f"{MAX_ROWS + 1} rows were sent", f"expected 1 to {MAX_ROWS}", "split"],
    ),
    "a negative number of rows": (
        pb.Tensor(data_type=1, shape=[-1, *GREY.shape], data=b""),
        "images.tensor.shape",
        ["-1 rows were sent", f"expected 1 to {MAX_ROWS}"],
    ),
    "the largest int64 as rows": (
        pb.Tensor(data_type=1, shape=[2**63 - 1, *GREY.shape], data=b""),
        "images.tensor.shape",
        [f"{2**63 - 1} rows were sent", f"expected 1 to {MAX_ROWS}"],
    ),
    "a product that overflows int64 to 0": (
        pb.Tensor(data_type=1, shape=[2**32, 2**32, HEIGHT, WIDTH], data=b""),
        "images.tensor.shape",
        [f"[{2**32}, {2**32}, {HEIGHT}, {WIDTH}] was sent", IMAGE_SHAPE],
    ),
    "a byte too few": (
        pb.Tensor(data_type=1, shape=[1, *GREY.shape], data=b"\0" * 95),
        "images.tensor.data",
        ["95 bytes were sent", "expected 96", "DATA_TYPE_FLOAT32", f"[1, 1, {HEIGHT}, {WIDTH}]"],
    ),
    "a byte too many": (
        pb.Tensor(data_type=3, shape=[1, *GREY.shape], data=b"\0" * 25),
        "images.tensor.data",
        ["25 bytes were sent", "expected 24", "DATA_TYPE_UINT8"],
    ),
    "no bytes": (
        pb.Tensor(data_type=2, shape=[2, *GREY.shape]),
        "images.tensor.data",
        ["0 bytes were sent", "expected 96", "DATA_TYPE_FLOAT16"],
    ),
    "intensities from 0 to 255 as floats": (
        tensor(pixels(1, *GREY.shape).astype(np.float32)),
        "images.tensor.data",
        ["were sent, expected 0 to 1", "divide by 255", "DATA_TYPE_UINT8"],
    ),
    "intensities from 0 to 255 as half floats": (
        tensor(pixels(1, *GREY.shape).astype(np.float16)),
        "images.tensor.data",
        ["were sent, expected 0 to 1", "divide by 255"],
    ),
    "intensities from -1 to 1": (
        tensor(np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, *GREY.shape)),
        "images.tensor.data",
        ["values from -1 to 1 were sent", "expected 0 to 1"],
    ),
    "slightly above 1": (
        tensor(grey_rows(value=1.001)),
        "images.tensor.data",
        ["to 1.001 were sent", "expected 0 to 1"],
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGE_TENSORS)
def test_an_image_tensor_that_breaks_the_contract_is_refused_with_sent_and_expected(
    case: str,
) -> None:
    sent, field, parts = BAD_IMAGE_TENSORS[case]
    found_field, description = violation_of(lambda: decode(pb.Images(tensor=sent)))
    assert found_field == field
    for part in parts:
        assert part in description
    assert len(description) < 400


def test_the_hint_to_divide_by_255_is_only_given_for_byte_ranges() -> None:
    _, description = violation_of(lambda: decode(pb.Images(tensor=tensor(grey_rows(value=-0.5)))))
    assert "255" not in description


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", ["images", "noisy images", "latents"])
def test_values_that_are_not_finite_are_refused_with_the_first_row(
    kind: str, bad: float, dtype: type
) -> None:
    shape = (3, DIM) if kind == "latents" else (3, *GREY.shape)
    array = np.full(shape, 0.5, dtype=dtype)
    array[1, ..., -1] = bad
    bad_values = int((~np.isfinite(array)).sum())
    if kind == "latents":
        field, description = violation_of(lambda: decode_latents(tensor(array), DIM))
        assert field == "latents.data"
    else:
        allowed = tensors.UNIT_RANGE if kind == "images" else tensors.NOISY_RANGE
        field, description = violation_of(
            lambda: decode(pb.Images(tensor=tensor(array)), allowed=allowed)
        )
        assert field == "images.tensor.data"
    assert f"{bad_values} values" in description
    assert "first in row 1" in description


LATENT_SHAPE = f"expected [n, {DIM}]"
BAD_LATENTS = {
    "bytes": (tensor(pixels(1, DIM)), "latents.data_type", ["DATA_TYPE_UINT8 was sent"]),
    "no tensor at all": (pb.Tensor(), "latents.data_type", ["DATA_TYPE_UNSPECIFIED was sent"]),
    "one latent without its batch dimension": (
        tensor(np.zeros(DIM, dtype=np.float32)),
        "latents.shape",
        [f"[{DIM}] was sent", LATENT_SHAPE],
    ),
    "the wrong latent dimension": (
        tensor(np.zeros((1, DIM + 1), dtype=np.float32)),
        "latents.shape",
        [f"[1, {DIM + 1}] was sent", LATENT_SHAPE],
    ),
    "zero rows": (
        tensor(np.zeros((0, DIM), dtype=np.float32)),
        "latents.shape",
        ["0 rows were sent", f"expected 1 to {MAX_ROWS}"],
    ),
    "one row too many": (
        tensor(np.zeros((MAX_ROWS + 1, DIM), dtype=np.float32)),
        "latents.shape",
        [f"{MAX_ROWS + 1} rows were sent", f"expected 1 to {MAX_ROWS}"],
    ),
    "the wrong byte length": (
        pb.Tensor(data_type=1, shape=[2, DIM], data=b"\0" * 12),
        "latents.data",
        ["12 bytes were sent", "expected 24"],
    ),
}


@pytest.mark.parametrize("case", BAD_LATENTS)
def test_latents_that_break_the_contract_are_refused_with_sent_and_expected(case: str) -> None:
    sent, field, parts = BAD_LATENTS[case]
    found_field, description = violation_of(lambda: decode_latents(sent, DIM))
    assert found_field == field
    for part in parts:
        assert part in description


def test_images_in_neither_form_are_refused() -> None:
    field, description = violation_of(lambda: decode(pb.Images()))
    assert field == "images"
    assert "images.tensor or images.encoded" in description


# --- tensors that are accepted ----------------------------------------------------------------


def base_of(array: np.ndarray[Any, Any]) -> object:
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    return base


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "u1"])
def test_decoding_a_tensor_copies_nothing(dtype: str) -> None:
    array = (pixels(2, *GREY.shape) > 127).astype(dtype)
    rows = decode(pb.Images(tensor=tensor(array)))
    assert not rows.array.flags.owndata
    assert isinstance(base_of(rows.array), bytes)
    np.testing.assert_array_equal(rows.array, array)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_float_images_arrive_unchanged(dtype: type) -> None:
    array = np.random.default_rng(1).random((MAX_ROWS, *GREY.shape)).astype(dtype)
    floats = decode(pb.Images(tensor=tensor(array))).as_float32()
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, array.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_latents_arrive_unchanged_whatever_their_size(dtype: type) -> None:
    array = np.array([[-6e4, 0.1, 6e4], [1e-6, -0.0, 3.5]], dtype=dtype)
    floats = decode_latents(tensor(array), DIM).as_float32()
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, array.astype(np.float32))


def test_uint8_means_exactly_the_float32_quotient_by_255() -> None:
    array = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    rows = decode(pb.Images(tensor=tensor(array)), ImageSpec(1, 16, 16))
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(rows.as_float32().ravel(), expected)


def test_rounding_errors_of_resampling_are_tolerated_at_both_ends() -> None:
    array = grey_rows()
    array[0, 0, 0, :2] = (-5e-5, 1 + 5e-5)
    decode(pb.Images(tensor=tensor(array)))


@pytest.mark.parametrize("value", [-10.0, 10.0])
def test_noisy_images_may_leave_the_unit_interval(value: float) -> None:
    rows = decode(pb.Images(tensor=tensor(grey_rows(value=value))), allowed=tensors.NOISY_RANGE)
    np.testing.assert_array_equal(rows.array, grey_rows(value=value))


@pytest.mark.parametrize("value", [-10.5, 10.5])
def test_noisy_images_beyond_ten_are_refused(value: float) -> None:
    _, description = violation_of(
        lambda: decode(
            pb.Images(tensor=tensor(grey_rows(value=value))), allowed=tensors.NOISY_RANGE
        )
    )
    assert "expected -10 to 10" in description


# --- image files that are refused -------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """Return a tiny PNG whose header claims a huge image."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", body)
        + png_chunk(b"IEND", b"")
    )


GOOD_PNG = image_file(Image.fromarray(pixels(HEIGHT, WIDTH)))
GOOD_JPEG = image_file(Image.fromarray(pixels(HEIGHT, WIDTH)), "JPEG")
UNREADABLE = "cannot be read as PNG or JPEG"
TOO_SMALL = image_file(Image.fromarray(pixels(HEIGHT, WIDTH - 1)))
TURNED_JPEG = image_file(Image.fromarray(pixels(WIDTH, HEIGHT)), "JPEG")
BAD_FILES = {
    "empty": (b"", ["0 bytes were sent", UNREADABLE]),
    "no image": (b"GIF89a, or so they say", ["22 bytes were sent", UNREADABLE]),
    "GIF": (image_file(Image.fromarray(pixels(HEIGHT, WIDTH)), "GIF"), [UNREADABLE]),
    "BMP": (image_file(Image.fromarray(pixels(HEIGHT, WIDTH)), "BMP"), [UNREADABLE]),
    "PNG cut in its header": (GOOD_PNG[:20], ["20 bytes were sent", UNREADABLE]),
    "PNG cut in its pixels": (GOOD_PNG[:50], ["50 bytes were sent", UNREADABLE]),
    "JPEG cut in its header": (GOOD_JPEG[:100], ["100 bytes were sent", UNREADABLE]),
    "JPEG cut in its pixels": (GOOD_JPEG[:-40], [UNREADABLE]),
    "PNG with a flipped bit": (
        GOOD_PNG[:45] + bytes([GOOD_PNG[45] ^ 1]) + GOOD_PNG[46:],
        [UNREADABLE],
    ),
    "PNG of another size": (
        TOO_SMALL,
        [f"{WIDTH - 1} x {HEIGHT} pixels", f"expected {WIDTH} x {HEIGHT}", "resize"],
    ),
    "JPEG that lies on its side": (
        TURNED_JPEG,
        [f"{HEIGHT} x {WIDTH} pixels", f"expected {WIDTH} x {HEIGHT}", "resize"],
    ),
}


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_with_its_index(case: str, index: int) -> None:
    bad, parts = BAD_FILES[case]
    files = [GOOD_PNG, GOOD_JPEG, GOOD_PNG]
    files[index] = bad
    field, description = violation_of(lambda: decode(encoded(*files)))
    assert field == f"images.encoded.files[{index}]"
    for part in parts:
        assert part in description


def test_every_bad_file_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        decode(encoded(b"rubbish", GOOD_PNG, TOO_SMALL))
    fields = [violation.field for violation in refused.value.violations]
    assert fields == ["images.encoded.files[0]", "images.encoded.files[2]"]


def test_a_thousand_bad_files_do_not_give_a_thousand_violations() -> None:
    with pytest.raises(InvalidRequest) as refused:
        tensors.file_rows(encoded(*[b"rubbish"] * 1000), GREY, max_rows=1000)
    assert 1 <= len(refused.value.violations) <= 10


@pytest.mark.parametrize("rows", [0, MAX_ROWS + 1])
@pytest.mark.parametrize("file", [GOOD_PNG, GOOD_JPEG], ids=["png", "jpeg"])
def test_too_few_or_too_many_files_are_refused(file: bytes, rows: int) -> None:
    field, description = violation_of(lambda: decode(encoded(*[file] * rows)))
    assert field == "images.encoded.files"
    assert f"{rows} rows were sent, expected 1 to {MAX_ROWS}" in description


def test_a_png_that_claims_gigapixels_is_refused_by_its_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pillow has no hook to observe decoding, so `load` is replaced."""

    loaded = []

    def load(self: object) -> None:
        loaded.append(self)
        raise OSError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    field, description = violation_of(lambda: decode(encoded(bomb(60_000, 60_000))))
    assert field == "images.encoded.files[0]"
    assert "60000 x 60000 pixels" in description
    assert not loaded
    violation_of(lambda: decode(encoded(GOOD_PNG)))
    assert loaded


def test_a_corrupted_file_is_read_or_refused_without_an_internal_error() -> None:
    generator = np.random.default_rng(3)
    palette = Image.fromarray(pixels(HEIGHT, WIDTH)).convert("P")
    originals = (GOOD_PNG, GOOD_JPEG, image_file(palette))
    refused = 0
    for turn in range(300):
        damaged = bytearray(originals[turn % len(originals)])
        for place in generator.integers(8, len(damaged), 3):
            damaged[place] = generator.integers(256)
        try:
            decode(encoded(bytes(damaged)))
        except InvalidRequest:
            refused += 1
    assert refused > 100


# --- image files that are accepted ------------------------------------------------------------


def read(file: bytes, spec: ImageSpec = GREY) -> Pixels:
    rows = decode(encoded(file), spec)
    assert rows.divisor == 255.0
    assert rows.array.dtype == np.uint8
    assert rows.array.shape == (1, *spec.shape)
    return rows.array[0]


@pytest.mark.parametrize(
    "convert",
    [
        lambda image: image,
        lambda image: image.convert("LA"),
        lambda image: image.convert("RGB"),
        lambda image: image.convert("RGBA"),
        lambda image: image.convert("P"),
    ],
    ids=["L", "LA", "RGB", "RGBA", "P"],
)
@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey model", "rgb model"])
def test_a_grey_picture_is_read_the_same_from_every_png_mode(
    convert: Callable[[Image.Image], Image.Image], spec: ImageSpec
) -> None:
    original = pixels(HEIGHT, WIDTH)
    found = read(image_file(convert(Image.fromarray(original))), spec)
    for channel in found:
        np.testing.assert_array_equal(channel, original)


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey model", "rgb model"])
def test_a_palette_png_with_alpha_per_colour_is_read_like_one_without(spec: ImageSpec) -> None:
    """Web tools write such files; they must not cause a warning of Pillow in the log."""
    original = pixels(HEIGHT, WIDTH)
    palette = Image.fromarray(original).convert("P")
    file = image_file(palette, transparency=bytes(range(256)))
    for channel in read(file, spec):
        np.testing.assert_array_equal(channel, original)


def test_alpha_is_dropped_and_not_blended() -> None:
    colours = pixels(HEIGHT, WIDTH, 4)
    found = read(image_file(Image.fromarray(colours)), RGB)
    np.testing.assert_array_equal(found, np.moveaxis(colours[..., :3], 2, 0))


def test_colour_files_become_luminance_for_a_grey_model() -> None:
    colours = pixels(HEIGHT, WIDTH, 3)
    found = read(image_file(Image.fromarray(colours)))
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(found[0], luminance, atol=1.0)


def test_colour_files_keep_their_channels_for_an_rgb_model() -> None:
    colours = pixels(HEIGHT, WIDTH, 3)
    found = read(image_file(Image.fromarray(colours)), RGB)
    np.testing.assert_array_equal(found, np.moveaxis(colours, 2, 0))


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey model", "rgb model"])
def test_sixteen_bit_files_are_scaled_and_not_clipped(spec: ImageSpec) -> None:
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    for channel in read(image_file(Image.fromarray(deep)), spec):
        np.testing.assert_allclose(channel, deep / 257.0, atol=1.0)
        assert channel[0, 0] == 0
        assert channel[-1, -1] == 255


def test_one_bit_files_are_black_and_white() -> None:
    original = pixels(HEIGHT, WIDTH) > 127
    np.testing.assert_array_equal(read(image_file(Image.fromarray(original)))[0], original * 255)


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey model", "rgb model"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_files_are_read(mode: str, spec: ImageSpec) -> None:
    flat = Image.new("L", (WIDTH, HEIGHT), 90).convert(mode)
    np.testing.assert_allclose(read(image_file(flat, "JPEG", quality=95), spec), 90, atol=3)


def test_files_keep_their_order_and_may_mix_formats() -> None:
    greys = [10, 120, 230]
    files = [
        image_file(Image.new("L", (WIDTH, HEIGHT), grey), form)
        for grey, form in zip(greys, ("PNG", "JPEG", "PNG"), strict=True)
    ]
    rows = decode(encoded(*files)).array
    np.testing.assert_allclose(rows.mean(axis=(1, 2, 3)), greys, atol=2)


# --- encoded replies --------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize(
    ("output_format", "data_type", "dtype"),
    [
        (pb.IMAGE_FORMAT_FLOAT32, pb.DATA_TYPE_FLOAT32, "<f4"),
        (pb.IMAGE_FORMAT_FLOAT16, pb.DATA_TYPE_FLOAT16, "<f2"),
    ],
)
def test_float_images_are_encoded_unchanged(
    output_format: int, data_type: int, dtype: str, spec: ImageSpec
) -> None:
    array = np.random.default_rng(2).random((3, *spec.shape), dtype=np.float32)
    sent = encode_images(array, output_format).tensor
    assert sent.data_type == data_type
    assert tuple(sent.shape) == array.shape
    found = np.frombuffer(sent.data, dtype=dtype).reshape(array.shape)
    np.testing.assert_array_equal(found, array.astype(dtype))


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
def test_uint8_images_are_encoded_with_their_shape(spec: ImageSpec) -> None:
    original = pixels(2, *spec.shape)
    floats = original.astype(np.float32) / np.float32(255)
    sent = encode_images(floats, pb.IMAGE_FORMAT_UINT8).tensor
    assert sent.data_type == pb.DATA_TYPE_UINT8
    assert tuple(sent.shape) == original.shape
    np.testing.assert_array_equal(
        np.frombuffer(sent.data, dtype=np.uint8).reshape(original.shape), original
    )


def test_values_between_two_steps_are_rounded_half_to_even_and_clamped() -> None:
    wanted = {0.5: 0, 1.5: 2, 2.5: 2, 3.5: 4, 253.5: 254, 254.5: 254, -3.0: 0, 300.0: 255}
    values = np.array([value / 255 for value in wanted], dtype=np.float32)
    scaled = values * np.float32(255)
    exact = scaled == np.array(list(wanted), dtype=np.float32)
    assert exact.all(), "these halves do not survive the division; choose others"
    sent = encode_images(values.reshape(1, 1, 2, 4), pb.IMAGE_FORMAT_UINT8).tensor
    assert list(sent.data) == list(wanted.values())


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
def test_png_files_hold_exactly_what_uint8_would(spec: ImageSpec) -> None:
    array = np.random.default_rng(4).random((3, *spec.shape), dtype=np.float32) * 1.2 - 0.1
    files = encode_images(array, pb.IMAGE_FORMAT_PNG)
    uint8 = encode_images(array, pb.IMAGE_FORMAT_UINT8).tensor
    expected = np.frombuffer(uint8.data, dtype=np.uint8).reshape(array.shape)
    assert len(files.encoded.files) == 3
    for data in files.encoded.files:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert image.mode == ("L" if spec.channels == 1 else "RGB")
    np.testing.assert_array_equal(decode(files, spec).array, expected)


def test_uint8_images_survive_decoding_and_encoding() -> None:
    original = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    rows = decode(pb.Images(tensor=tensor(original)), ImageSpec(1, 16, 16))
    out = encode_images(rows.as_float32(), pb.IMAGE_FORMAT_UINT8).tensor
    assert out.data == original.tobytes()


def test_a_strided_array_is_encoded_in_row_major_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    sent = encode_tensor(array)
    assert tuple(sent.shape) == (4, 3)
    np.testing.assert_array_equal(np.frombuffer(sent.data, dtype="<f4").reshape(4, 3), array)


def test_the_default_output_format_is_float32() -> None:
    assert tensors.check_format(pb.IMAGE_FORMAT_UNSPECIFIED) == pb.IMAGE_FORMAT_FLOAT32


@pytest.mark.parametrize("output_format", pb.ImageFormat.values()[1:])
def test_every_named_output_format_is_accepted(output_format: int) -> None:
    assert tensors.check_format(output_format) == output_format


@pytest.mark.parametrize("output_format", [5, 99, -1])
def test_an_unknown_output_format_is_refused_with_the_known_ones(output_format: int) -> None:
    field, description = violation_of(lambda: tensors.check_format(output_format))
    assert field == "output_format"
    assert f"{output_format} was sent" in description
    for name in pb.ImageFormat.keys()[1:]:
        assert name in description


@pytest.mark.parametrize("value", [-1e-45, 1.0000001, np.nan, np.inf, -np.inf, -0.5, 2.0])
@pytest.mark.parametrize("position", [0, HEIGHT * WIDTH - 1])
def test_one_value_outside_the_unit_interval_is_detected(value: float, position: int) -> None:
    array = grey_rows()
    data = array.tobytes()
    layout = tensors.image_layout(tensor(array), len(data), GREY, max_rows=1)
    assert tensors._is_unit_range(layout, data, 0)
    array.ravel()[position] = value
    assert not tensors._is_unit_range(layout, array.tobytes(), 0)


def test_both_ends_of_the_unit_interval_are_accepted() -> None:
    array = grey_rows()
    array.ravel()[:2] = (0.0, 1.0)
    layout = tensors.image_layout(tensor(array), array.nbytes, GREY, max_rows=1)
    assert tensors._is_unit_range(layout, b"odd" + array.tobytes(), 3)
