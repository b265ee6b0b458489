import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from latentserve_training.errors import ConfigError
from latentserve_training.train.checkpoint import load_checkpoint
from latentserve_training.train.loop import build_model, train
from latentserve_training.train.precision import (
    explain_compiler_limits,
    networks,
    prepare_networks,
    run_in_bfloat16,
)
from latentserve_training.train.run_folder import RunFolder

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """A network that records the dtype of its computation."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.types = []

    def forward(self, inputs):
        outputs = self.layer(inputs)
        self.types.append(outputs.dtype)
        return outputs


def test_the_outermost_networks_are_found(make_config, image_data):
    model = build_model(make_config(), image_data.image_shape)
    assert networks(model) == [model.encoder, model.decoder]
    holder = nn.ModuleDict({"pair": nn.ModuleList([nn.Linear(1, 1), nn.Sequential(nn.ReLU())])})
    assert networks(holder) == list(holder["pair"])


def test_bfloat16_is_for_training_alone_and_ends_with_the_network():
    network = Recorder()
    run_in_bfloat16(network, "cpu")
    assert network.train()(torch.rand(3, 4)).dtype == torch.float32
    assert network.eval()(torch.rand(3, 4)).dtype == torch.float32
    assert network.types == [torch.bfloat16, torch.float32]


def test_a_network_with_several_outputs_gives_float32_too():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, inputs):
            return self.first(inputs), self.second(inputs)

    network = Heads().train()
    run_in_bfloat16(network, "cpu")
    outputs = network(torch.rand(3, 4))
    assert isinstance(outputs, tuple)
    assert [each.dtype for each in outputs] == [torch.float32] * 2


def test_a_run_in_bfloat16_ends_close_to_one_in_float32_with_float32_weights(
    tmp_path, make_config, image_data
):
    losses = {}
    for precision in ("float32", "bfloat16"):
        folder = RunFolder(tmp_path / precision)
        config = make_config("vae", training={"precision": precision, "epochs": 4})
        train(config, image_data, folder)
        last = load_checkpoint(folder.last)
        weights = [each for each in last.model.values() if each.is_floating_point()]
        assert {each.dtype for each in weights} == {torch.float32}
        losses[precision] = last.history[-1]["validation_loss"]
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05, abs=1.0)


@pytest.mark.parametrize("setting", [{"precision": "bfloat16"}, {"compile": True}])
def test_a_kind_without_a_network_is_refused(setting, make_config, image_data):
    config = make_config("sparse", training=setting)
    model = build_model(config, image_data.image_shape)
    with pytest.raises(ConfigError, match="has no separate network"):
        prepare_networks(model, config.training, CPU)


def test_a_missing_compiler_is_named(make_config, image_data, monkeypatch):
    def fail(_):
        def run(_):
            raise RuntimeError("no C++ compiler\nwas found")

        return run

    monkeypatch.setattr(torch, "compile", fail)
    config = make_config(training={"compile": True})
    model = build_model(config, image_data.image_shape)
    with pytest.raises(ConfigError, match=r"no working compiler \(no C\+\+ compiler\); install g"):
        prepare_networks(model, config.training, CPU)


def test_a_gradient_in_the_loss_is_explained():
    with (
        pytest.raises(ConfigError, match=r"set training\.compile = false"),
        explain_compiler_limits(),
    ):
        raise RuntimeError("torch.compile does not currently support double backward")
    with pytest.raises(RuntimeError, match="something else"), explain_compiler_limits():
        raise RuntimeError("something else")


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") and Path(sysconfig.get_path("include"), "Python.h").exists()),
    reason="torch.compile needs g++ and Python's headers (Debian: python3-dev)",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # that, too
def test_a_compiled_model_has_the_same_names_and_takes_nearly_the_same_step(
    make_config, image_data
):
    config = make_config(model={"network": "mlp", "hidden": [8]}, training={"compile": True})
    states = {}
    for compiled in (False, True):
        model = build_model(config, image_data.image_shape)
        if compiled:
            prepare_networks(model, config.training, CPU)
        images, generator = image_data.train[:32] / 255.0, torch.Generator()
        optimizers = model.optimizers(config.optimizer)
        model.training_step(images, optimizers, generator, config.optimizer)
        states[compiled] = model.state_dict()
    assert list(states[True]) == list(states[False])
    for name, weights in states[False].items():
        torch.testing.assert_close(states[True][name], weights, rtol=1e-3, atol=1e-4)
