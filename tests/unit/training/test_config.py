import json

import pytest

from latentserve_training.config import PRESETS_FOLDER, load_config, parse_config
from latentserve_training.errors import ConfigError
from latentserve_training.models.registry import KINDS

PRESETS = sorted(path.stem for path in PRESETS_FOLDER.glob("*.toml"))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_named_after_their_model(preset):
    assert load_config(preset).name == preset


def test_every_kind_has_a_preset():
    assert {load_config(preset).kind for preset in PRESETS} == KINDS.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_begin_with_the_expected_result(preset):
    text = (PRESETS_FOLDER / f"{preset}.toml").read_text(encoding="utf-8")
    header = text.partition("\n\n")[0]
    assert header.startswith("#")
    assert "test_" in header


def test_a_configuration_survives_json():
    config = load_config("mnist-dae", ["seed=7", "model.channels=[8, 16]"])
    assert config.model.channels == (8, 16)
    assert parse_config(json.loads(json.dumps(config.as_dict()))) == config


def test_a_configuration_is_read_from_a_path(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nkind = "vae"\n[model]\nlatent_dim = 4\n', encoding="utf-8")
    config = load_config(str(path))
    assert (config.name, config.kind, config.model.latent_dim) == ("own", "vae", 4)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epochs=3", 3),
        ("optimizer.learning_rate=1", 1.0),
        ("model.reconstruction_loss=cross_entropy", "cross_entropy"),
        ('model.reconstruction_loss="cross_entropy"', "cross_entropy"),
    ],
)
def test_overrides_are_typed(override, expected):
    table, _, field = override.partition("=")[0].partition(".")
    value = getattr(getattr(load_config("mnist-ae", [override]), table), field)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(("text", "size"), [("0", None), ("28", (28, 28)), ("[24, 32]", (24, 32))])
def test_an_image_size_is_a_side_or_both(text, size):
    config = load_config("mnist-ae", [f"data.image_size={text}"])
    assert config.data.size == size
    assert parse_config(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.precision=float16", r"it must be one of: float32, bfloat16"),
        ("training.compile=1", r"training\.compile is 1; it must be of type bool"),
        ("training.max_skipped_steps=-1", r"max_skipped_steps and patience_epochs must be 0"),
        ("training.patience=3", r"did you mean 'training\.patience_epochs'"),
        ("training.epoch=3", r"unknown key 'training.epoch'; did you mean 'training.epochs'\?"),
        ("epochs=3", r"unknown key 'epochs'; did you mean 'training.epochs'\?"),
        ("model.learning_rate=1.0", r"did you mean 'optimizer.learning_rate'\?"),
        ("zzz=1", "known keys: name, kind, seed"),
        ("model=3", r"model is a table: write \[model\]"),
        ("name.x=3", "name is a value, not a table"),
        ("training.epochs", "write it as key=value"),
        ("training.epochs=true", "training.epochs is True; it must be of type int"),
        ("training.epochs=2.5", "it must be of type int"),
        ("training.epochs=0", r"\[training\]: epochs, batch_size and threads must be 1 or more"),
        ("training.device=tpu", "it must be one of: cpu, cuda"),
        ("model.channels=8", "model.channels is 8; it must be a list"),
        ("model.channels=['a']", "model.channels is 'a'; it must be of type int"),
        ("model.latent_dim=0", "latent_dim must be 1 or more"),
        ("optimizer.learning_rate=-1.0", "learning_rate must be above 0"),
        ("data.validation_fraction=1.0", "validation_fraction must lie between 0 and 1"),
        ("data.test_fraction=0.0", "test_fraction must lie between 0 and 1"),
        ("data.image_size=-8", r"image_size must be 0 \(as they are\), a side, or \[height, width"),
        ("data.image_size=[8]", "image_size must be 0"),
        ("data.image_size=[8, 0]", "image_size must be 0"),
        ("data.image_size=true", "data.image_size is True; it must be of type int"),
        ("data.image_size=['a', 8]", "data.image_size is 'a'; it must be of type int"),
        ("data.channels=2", r"channels must be 0 \(as they are\), 1 \(grey\) or 3 \(RGB\)"),
        ("kind=diffusion", "kind is 'diffusion'; it must be one of: autoencoder, .*, vae"),
        ("seed=-1", "seed is -1"),
        ("name=''", "name is ''; .*lower-case letters"),
        ("name=Own_Model", "name is 'Own_Model'; .*lower-case letters"),
        ("name=-a", "name is '-a'"),
    ],
)
def test_user_errors_are_named_with_the_correction(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config("mnist-ae", [override])


def test_a_key_of_another_kind_is_unknown():
    with pytest.raises(ConfigError, match=r"unknown key 'model.noise_sigma'"):
        load_config("mnist-vae", ["model.noise_sigma=0.1"])


def test_an_unknown_preset_lists_those_that_exist():
    with pytest.raises(ConfigError, match=r"unknown preset 'mnist'; presets: .*mnist-vae"):
        load_config("mnist")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*broken\.toml"):
        load_config(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(str(tmp_path / "absent.toml"))
