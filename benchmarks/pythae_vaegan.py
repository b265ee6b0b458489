"""pythae's VAEGAN on MNIST, measured as our own generators are.

    # in an environment with pythae 0.1.2 (needs nothing of this project):
    python benchmarks/pythae_vaegan.py train --data MNIST --minutes 10 --out pythae.npz
    # in an environment with latentserve-training:
    python benchmarks/pythae_vaegan.py measure pythae.npz --data MNIST

``train`` is pythae's own trainer with the configuration and the networks that pythae publishes for
MNIST (examples/scripts/configs/mnist/vaegan_config.json and base_training_config.json), stopped
after so many minutes of wall time on one CPU thread. Those networks have 28 million parameters, and
a step takes seconds there; ``--narrower 8`` divides their widths, for about as many parameters as
our own have. It writes 10,000 samples of the prior and the
reconstructions of the test images. ``measure`` looks at them through the shipped classifier, with
the functions behind ``test_frechet_distance`` and its companions.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LATENT_DIM = 16
BATCH = 100
LEARNING_RATE = 1e-3
EPOCHS = 100
SAMPLES = 10_000
VALIDATION_IMAGES = 3000  # as many as our own runs hold out
DECODED_AT_ONCE = 500


class TimeIsUpError(Exception):
    """Ends pythae's training loop, which knows no limit but epochs."""


def read_images(folder: Path, name: str) -> np.ndarray:
    """One IDX file of images, gzip or not, as float32 ``[n, 1, 28, 28]`` in [0, 1]."""
    path = next(path for path in (folder / name, folder / f"{name}.gz") if path.is_file())
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return images.astype(np.float32) / 255.0


def narrow_networks(config: Any, narrower: int) -> tuple[Any, Any, Any]:
    """Pythae's convolutional networks for MNIST with all widths divided by ``narrower``.

    Returns:
        Encoder, decoder and discriminator; the published ones for 1.
    """
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn.benchmarks.mnist import (
        Decoder_Conv_AE_MNIST,
        Discriminator_Conv_MNIST,
        Encoder_Conv_VAE_MNIST,
    )
    from torch import nn

    widths = [width // narrower for width in (128, 256, 512, 1024)]
    encoder, discriminator = Encoder_Conv_VAE_MNIST(config), Discriminator_Conv_MNIST(config)
    for index, (before, after) in enumerate(itertools.pairwise([1, *widths])):
        encoder.layers[index][0] = nn.Conv2d(before, after, 4, 2, padding=1)
        encoder.layers[index][1] = nn.BatchNorm2d(after)
        discriminator.layers[index][0] = nn.Conv2d(before, after, 4, 2, padding=1)
    encoder.embedding = nn.Linear(widths[-1], LATENT_DIM)
    encoder.log_var = nn.Linear(widths[-1], LATENT_DIM)
    discriminator.layers[-1][0] = nn.Linear(widths[-1], 1)

    class Decoder(Decoder_Conv_AE_MNIST):  # type: ignore[misc]  # pythae has no types
        def forward(self, z: Any, output_layer_levels: Any = None) -> Any:
            """As pythae's, which has its width of 1024 in the code."""
            features = self.layers[0](z).reshape(len(z), widths[-1], 4, 4)
            for layer in self.layers[1:]:
                features = layer(features)
            return ModelOutput(reconstruction=features)

    decoder = Decoder(config)
    decoder.layers[0] = nn.Linear(LATENT_DIM, widths[-1] * 4 * 4)
    for index, output_padding in enumerate((0, 1, 1), start=1):
        before, after = widths[-index], 1 if index == 3 else widths[-index - 1]
        decoder.layers[index][0] = nn.ConvTranspose2d(
            before, after, 3, 2, padding=1, output_padding=output_padding
        )
        if index < 3:
            decoder.layers[index][1] = nn.BatchNorm2d(after)
    return encoder, decoder, discriminator


def train(data: Path, minutes: float, seed: int, narrower: int, out: Path) -> None:
    """Train for so long, then sample and reconstruct."""
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAEGAN, VAEGANConfig
    from pythae.trainers import (
        CoupledOptimizerAdversarialTrainer,
        CoupledOptimizerAdversarialTrainerConfig,
    )
    from pythae.trainers.training_callbacks import TrainingCallback

    class Deadline(TrainingCallback):  # type: ignore[misc]  # pythae has no types
        steps = 0
        started_s = time.monotonic()

        def on_train_begin(self, training_config: Any, **kwargs: Any) -> None:
            self.started_s = time.monotonic()

        def on_train_step_end(self, training_config: Any, **kwargs: Any) -> None:
            self.steps += 1
            if time.monotonic() - self.started_s > 60.0 * minutes:
                raise TimeIsUpError

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = VAEGANConfig(
        input_dim=(1, 28, 28),
        latent_dim=LATENT_DIM,
        reconstruction_loss="mse",
        adversarial_loss_scale=0.8,
        reconstruction_layer=3,
        margin=0.4,
        equilibrium=0.68,
    )
    model = VAEGAN(config, *narrow_networks(config, narrower))
    images = torch.from_numpy(read_images(data, "train-images-idx3-ubyte"))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels = torch.zeros(len(images))
    kept, held_out = order[VALIDATION_IMAGES:], order[:VALIDATION_IMAGES]
    deadline = Deadline()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = CoupledOptimizerAdversarialTrainer(
            model,
            train_dataset=BaseDataset(images[kept], labels[kept]),
            eval_dataset=BaseDataset(images[held_out], labels[held_out]),
            training_config=CoupledOptimizerAdversarialTrainerConfig(
                output_dir=scratch,
                per_device_train_batch_size=BATCH,
                per_device_eval_batch_size=BATCH,
                num_epochs=EPOCHS,
                encoder_learning_rate=LEARNING_RATE,
                decoder_learning_rate=LEARNING_RATE,
                discriminator_learning_rate=LEARNING_RATE,
                no_cuda=True,
                seed=seed,
            ),
            callbacks=[deadline],
        )
        try:
            trainer.train()
        except TimeIsUpError:
            model = trainer.model
    seconds = time.monotonic() - deadline.started_s
    print(f"{deadline.steps} steps of {BATCH} images in {seconds:.0f} s")
    test = torch.from_numpy(read_images(data, "t10k-images-idx3-ubyte"))
    model.eval()
    with torch.inference_mode():
        latents = torch.randn(
            SAMPLES, LATENT_DIM, generator=torch.Generator().manual_seed(seed)
        ).split(DECODED_AT_ONCE)
        samples = torch.cat([model.decoder(batch).reconstruction for batch in latents])
        means = [model.encoder(batch).embedding for batch in test.split(DECODED_AT_ONCE)]
        rebuilt = torch.cat([model.decoder(batch).reconstruction for batch in means])
    np.savez_compressed(
        out,
        samples=samples.numpy(),
        reconstructions=rebuilt.numpy(),
        seconds=seconds,
        steps=deadline.steps,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )


def measure(path: Path, data: Path) -> dict[str, float]:
    """The results of ``test_frechet_distance`` and its companions, and the squared error."""
    import torch

    from latentserve_training.data import load_data
    from latentserve_training.data.config import DataConfig
    from latentserve_training.evaluate.features import NEIGHBOURS
    from latentserve_training.evaluate.generation import divergence
    from latentserve_training.metrics.classifier import load_classifier
    from latentserve_training.metrics.frechet import frechet_distance
    from latentserve_training.metrics.neighbours import set_overlap
    from latentserve_training.pixels import to_float

    images, classifier = load_data(DataConfig(), 0, data), load_classifier()
    with np.load(path) as arrays:
        samples, rebuilt = (
            torch.from_numpy(arrays[name]) for name in ("samples", "reconstructions")
        )
        results = {name: float(arrays[name]) for name in ("seconds", "steps", "parameters")}

    def shares(classes: torch.Tensor) -> torch.Tensor:
        return torch.bincount(classes, minlength=classifier.classes).double() / len(classes)

    test, drawn = classifier.embed(images.test), classifier.embed(samples)
    overlap = set_overlap(test.features, drawn.features, NEIGHBOURS)
    covered = shares(drawn.classes) >= 0.1 / classifier.classes
    return results | {
        "frechet_distance": frechet_distance(test.features, drawn.features),
        "precision": overlap.precision,
        "recall": overlap.recall,
        "coverage": overlap.coverage,
        "classes_covered": float(covered.sum()),
        "histogram_kl": divergence(
            shares(drawn.classes), shares(classifier.embed(images.all_train).classes)
        ),
        "reconstruction_frechet": frechet_distance(
            test.features, classifier.embed(rebuilt).features
        ),
        "mse": float((rebuilt - to_float(images.test)).double().square().mean()),
    }


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    training = steps.add_parser("train", help="needs pythae")
    training.add_argument("--minutes", type=float, default=10.0)
    training.add_argument("--narrower", type=int, default=1, help="divides the networks' widths")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--out", type=Path, default=Path("pythae.npz"))
    measuring = steps.add_parser("measure", help="needs latentserve-training")
    measuring.add_argument("samples", type=Path)
    for each in (training, measuring):
        each.add_argument("--data", type=Path, required=True, help="folder with MNIST's IDX files")
    options = parser.parse_args()
    if options.step == "train":
        train(options.data, options.minutes, options.seed, options.narrower, options.out)
    else:
        print(json.dumps(measure(options.samples, options.data), indent=2))


if __name__ == "__main__":
    main()
