import pytest
import torch
from torch import nn

from latentserve_training.graphs.conversion import check_parity, convert
from latentserve_training.models.registry import KINDS
from latentserve_training.nn.networks import (
    NetworkConfig,
    ResidualBlock,
    build_decoder,
    build_encoder,
)


def takes_a_network(kind):
    return issubclass(KINDS[kind].config, NetworkConfig)


NETWORKS = [
    {"network": "conv", "channels": (4, 6)},
    {"network": "residual", "channels": (4, 6), "residual_blocks": 2},
    {"network": "residual", "channels": (4, 6), "code_channels": 2},
    {"network": "mlp", "hidden": (20, 10)},
    {"network": "mlp", "hidden": ()},
]


@pytest.mark.parametrize("fields", NETWORKS)
@pytest.mark.parametrize("image_shape", [(1, 12, 12), (3, 8, 4)])
def test_images_become_latents_and_latents_images(fields, image_shape):
    config = NetworkConfig(**fields)
    code = build_encoder(image_shape, config, 7)(torch.rand(5, *image_shape))
    assert code.shape == (5, 7)
    assert build_decoder(image_shape, config, 7)(code).shape == (5, *image_shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if takes_a_network(kind)])
# test_export.py exports the default network of every kind.
@pytest.mark.parametrize("fields", NETWORKS[2:4], ids=["residual", "mlp"])
def test_the_graphs_give_what_torch_gives(kind, fields):
    image_shape, latent_dim = (1, 12, 12), 7
    torch.manual_seed(0)
    registered = KINDS[kind]
    model = registered.build(image_shape, registered.config(latent_dim=latent_dim, **fields))
    with torch.no_grad():
        for parameter in model.parameters():  # some start as zero, and would hide a mistake
            parameter += 0.1 * torch.randn_like(parameter)
    for graph in model.graphs():
        proto = convert(graph.evaluating(), image_shape, latent_dim)
        assert check_parity(proto, graph, image_shape, latent_dim) < 1e-5


def test_an_mlp_without_hidden_layers_is_linear():
    encoder = build_encoder((1, 4, 4), NetworkConfig(network="mlp", hidden=()), 3)
    assert [type(module) for module in encoder.layers] == [nn.Linear]


def test_the_decoder_mirrors_the_encoder():
    decoder = build_decoder((1, 4, 4), NetworkConfig(network="mlp", hidden=(9, 5)), 3)
    widths = [layer.out_features for layer in decoder.layers if isinstance(layer, nn.Linear)]
    assert widths == [5, 9, 16]


def test_a_residual_block_starts_as_the_identity():
    features = torch.rand(2, 4, 3, 3)
    assert torch.equal(ResidualBlock(4)(features), features)


def test_code_channels_shrink_the_dense_layer():
    config = NetworkConfig(network="residual", channels=(4, 6), code_channels=2)
    encoder, decoder = build_encoder((1, 12, 12), config, 7), build_decoder((1, 12, 12), config, 7)
    assert encoder.project.in_features == decoder.expand.out_features == 2 * 3 * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"residual_blocks": 0}, "residual_blocks must be 1"),
        ({"code_channels": -1}, "code_channels must be 0"),
        ({"hidden": (4, 0)}, "hidden must"),
    ],
)
def test_impossible_networks_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**fields)
