import pytest
import torch

from latentserve_training.nn.blocks import ConvDecoder, ConvEncoder, feature_shape


def test_encoder_and_decoder_mirror_each_other():
    images = torch.rand(5, 3, 16, 24)
    encoder = ConvEncoder((3, 16, 24), (4, 6, 8), 7)
    decoder = ConvDecoder((3, 16, 24), (4, 6, 8), 7)
    assert feature_shape((3, 16, 24), (4, 6, 8)) == (8, 2, 3)
    assert encoder(images).shape == (5, 7)
    assert decoder(encoder(images)).shape == images.shape


def test_sizes_that_cannot_be_halved_are_refused():
    both = r"28×30 cannot be halved 2 times: .*data\.image_size=\[28, 32\], .*model\.channels"
    with pytest.raises(ValueError, match=both):
        feature_shape((1, 28, 30), (8, 16))
    with pytest.raises(ValueError, match=r"data\.image_size=4,"):
        feature_shape((1, 1, 1), (8, 16))


@pytest.mark.parametrize("widths", [(), (8, 0)])
def test_stages_need_widths(widths):
    with pytest.raises(ValueError, match="positive widths"):
        feature_shape((1, 28, 28), widths)
