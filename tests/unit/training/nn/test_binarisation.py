import pytest
import torch

from latentserve_training.nn.binarisation import dynamic_bits, static_bits


@pytest.fixture
def images():
    levels = torch.randint(0, 256, (40, 1, 6, 6), generator=torch.Generator().manual_seed(0))
    return levels.float() / 255.0


def test_dynamic_bits_are_sampled_anew_from_the_generator(images):
    generator = torch.Generator().manual_seed(1)
    first, second = dynamic_bits(images, generator), dynamic_bits(images, generator)
    assert not torch.equal(first, second)
    again = dynamic_bits(images, torch.Generator().manual_seed(1))
    assert torch.equal(first, again)


def test_static_bits_of_an_image_depend_on_the_image_and_the_seed_alone(images):
    bits = static_bits(images, seed=3)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(2))
    assert torch.equal(static_bits(images[order], seed=3), bits[order])
    assert torch.equal(static_bits(images[7:8], seed=3), bits[7:8])
    assert not torch.equal(static_bits(images, seed=4), bits)


@pytest.mark.parametrize(
    "draw",
    [
        lambda images: dynamic_bits(images, torch.Generator().manual_seed(5)),
        lambda images: static_bits(images, seed=5),
    ],
    ids=["dynamic", "static"],
)
def test_a_pixel_is_set_with_its_grey_level_as_probability(draw):
    levels = torch.tensor([0.0, 0.2, 0.5, 1.0])
    # One pixel differs in each image, or they would all have the same static bits.
    marks = torch.arange(2000.0).view(-1, 1, 1, 1)
    marks = torch.cat([marks // 256, marks % 256], dim=3) / 255.0
    images = torch.cat([levels.repeat_interleave(10).expand(2000, 1, 1, 40), marks], dim=3)
    bits = draw(images)[..., :40]
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    shares = bits.view(2000, 4, 10).mean((0, 2))
    assert shares[0] == 0.0
    assert shares[3] == 1.0
    # 20,000 samples: a standard error of at most 0.0035.
    torch.testing.assert_close(shares, levels, atol=0.0106, rtol=0)


def test_bits_keep_shape_and_dtype(images):
    assert static_bits(images.double(), 0).dtype == torch.float64
    assert dynamic_bits(images.double(), torch.Generator()).dtype == torch.float64
    assert torch.equal(static_bits(images.double(), 0).float(), static_bits(images, 0))
