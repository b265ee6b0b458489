import numpy as np
import pytest

from latentserve.v1 import tensor_pb2
from latentserve_client import BadReply
from latentserve_client._codec import from_images, from_tensor, to_tensor


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_arrays_come_back_as_they_went(dtype):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    back = from_tensor(to_tensor(array), rank=2)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (tensor_pb2.Tensor(data_type=0, shape=[1, 1], data=b"0000"), "unknown data type 0"),
        (tensor_pb2.Tensor(data_type=1, shape=[1], data=b"0000"), "2 dimensions"),
        (tensor_pb2.Tensor(data_type=1, shape=[1, -1], data=b"0000"), r"\[1, -1\]"),
        (tensor_pb2.Tensor(data_type=1, shape=[1, 2], data=b"0000"), "4 bytes for a float32"),
    ],
)
def test_a_reply_that_breaks_the_contract_is_refused(tensor, message):
    with pytest.raises(BadReply, match=message):
        from_tensor(tensor, rank=2)


def test_a_reply_without_images_is_refused():
    with pytest.raises(BadReply, match="no images"):
        from_images(tensor_pb2.Images())
