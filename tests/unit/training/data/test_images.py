import numpy as np
import pytest
import torch

from latentserve_training.data.images import (
    ImageData,
    Labels,
    Part,
    held_out_count,
    require_memory,
)
from latentserve_training.errors import DataError


def test_labels_follow_their_images_into_both_parts_together():
    images = torch.arange(12, dtype=torch.uint8).reshape(6, 1, 1, 2)
    data = ImageData(
        train=images[:3],
        validation=images[3:4],
        test=images[4:],
        name="six",
        sha256="0" * 64,
        labels=Labels(torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([9, 9])),
    )
    assert data.image_shape == (1, 1, 2)
    assert torch.equal(data.all_train, images[:4])
    assert data.labels.all_train.tolist() == [5, 6, 7, 8]


def test_a_head_of_0_images_is_all_images():
    part = Part(np.zeros((4, 1, 2, 2), np.uint8), np.arange(4))
    assert part.head(0).labels.tolist() == [0, 1, 2, 3]
    assert part.head(3).labels.tolist() == [0, 1, 2]
    assert Part(part.images).head(3).labels is None


def test_both_parts_must_keep_at_least_one_image():
    assert held_out_count(10, 0.2, "here") == 2
    with pytest.raises(DataError, match=r"here holds 1 image and no test images.*test_fraction"):
        held_out_count(1, 0.4, "here")
    with pytest.raises(DataError, match="here holds 4 images and no test images"):
        held_out_count(4, 0.1, "here")
    with pytest.raises(DataError, match="here holds 4 images"):
        held_out_count(4, 0.9, "here")


def test_images_larger_than_the_memory_are_refused_with_the_correction():
    require_memory(10**6, "here")
    with pytest.raises(DataError, match=r"here: 1000000\.0 GB .*data\.image_size.*max_train"):
        require_memory(10**15, "here")
