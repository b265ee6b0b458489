import numpy as np
import pytest
from unit.client.load.fakes import ONE_KIND

from latentserve_client.load.measure.validation import (
    ReferenceReply,
    ReplyValidator,
    check_reply,
    difference,
)

X = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def reference(read=lambda reply: {}, **parts):
    return ReferenceReply(parts, read, tolerance=1e-3)


@pytest.mark.parametrize(
    ("want", "have", "said"),
    [
        (X, X + 5e-4, ""),
        (X, X + 5e-3, "differs by up to 0.005"),
        (X, X[::-1], "differs"),  # rows in another order
        (X * 1000, X * 1000.5, ""),  # relative above 1
        (X, X[:2], "expected float32 [3, 4]"),
        (X, X.astype(np.float16), "float16 [3, 4]"),
        (X, np.full_like(X, np.nan), "differs by up to inf"),
        (X.astype(np.float16), X.astype(np.float16) + np.float16(1e-3), ""),
        (np.uint8([3, 250]), np.uint8([4, 249]), ""),
        (np.uint8([3, 250]), np.uint8([5, 250]), "differs by up to 2"),
        (np.int64([1]), np.int64([2]), "differs by up to 1"),
        (7, 7, ""),
        (7, 8, "8; expected 7"),
    ],
)
def test_compares_arrays_within_a_tolerance_and_other_values_exactly(want, have, said):
    found = difference({"x": want}, {"x": have}, 1e-3)
    assert (found == "") == (said == "")
    assert said in found


def test_missing_parts_are_wrong():
    assert "expected ['x', 'y']" in difference({"x": 1, "y": 2}, {"x": 1}, 1e-3)


def test_another_version_cannot_be_compared():
    assert check_reply(reference(lambda _: {"digest": "b"}, digest="a"), b"") is None


def test_chunks_of_a_stream_are_compared_by_their_rows():
    images = np.arange(40, dtype=np.float32).reshape(10, 4)
    whole = {"images": images, "seed": 3, "offset": 5, "digest": "a"}

    def chunk(start, rows):
        return reference(
            lambda _: {"images": rows, "seed": 3, "offset": start, "digest": "a"}, **whole
        )

    assert check_reply(chunk(5, images[:3]), b"") == ""
    assert check_reply(chunk(8, images[3:10]), b"") == ""
    assert "differs" in check_reply(chunk(8, images[4:7]), b"")
    assert "expected float32 [0, 4]" in check_reply(chunk(1, images[:3]), b"")


def test_the_validator_compares_its_share_and_keeps_examples():
    answers = ReplyValidator(ONE_KIND, [reference(lambda reply: {"x": reply}, x=b"right")], 0.25)
    for number in range(100):
        answers.on_reply(ONE_KIND.pool[0], b"wrong" if number >= 80 else b"right")
    answers.close()
    found = answers.take()
    assert (found.checked + found.skipped, found.wrong) == (25, 5)
    assert "expected b'right'" in found.examples[0]
    assert answers.take().checked == 0


def test_a_reply_that_cannot_be_read_is_wrong():
    def read(_):
        raise ValueError("no message")

    answers = ReplyValidator(ONE_KIND, [reference(read, x=1)], 1.0)
    answers.on_reply(ONE_KIND.pool[0], b"")
    answers.close()
    found = answers.take()
    assert found.wrong == 1
    assert "no message" in found.examples[0]


def test_replies_that_vary_are_not_compared():
    answers = ReplyValidator(ONE_KIND, [reference()], 1.0)
    answers.on_reply(ONE_KIND.pool[0], b"")
    assert not answers.busy
    answers.close()
    assert answers.take().checked == 0
