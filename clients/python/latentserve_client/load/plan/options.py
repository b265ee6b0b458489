"""Command-line options of `latentserve load`.

Imports little, because every command of `latentserve` builds the parser.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

ARRIVALS = ("constant", "poisson")
TRANSPORTS = ("cq", "aio")
PROTOCOLS = ("latentserve", "oip")
DEFAULT_CONCURRENCY = 16


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the load tester to a parser."""
    load = parser.add_argument_group("load")
    load.add_argument(
        "--mix",
        metavar="MIX",
        help="calls with weights and options, for example encode=5,sample=3:count=16 "
        "(default: reconstruct, or infer with --protocol oip); see docs/load-testing.md",
    )
    load.add_argument(
        "--concurrency",
        type=_count,
        metavar="N",
        help=f"closed loop: calls in flight over all connections (default: {DEFAULT_CONCURRENCY})",
    )
    load.add_argument(
        "--rate",
        metavar="RATE",
        help="open loop: calls per second, 200; steps, 100,200,400; a ramp, 100-500; "
        "each with or without a duration in seconds, 100-500:30,500:60",
    )
    load.add_argument(
        "--arrivals",
        choices=ARRIVALS,
        default="constant",
        help="open loop: evenly spaced arrivals, or a Poisson process (default: constant)",
    )
    load.add_argument(
        "--sweep",
        metavar="AXIS",
        help="one run per load, concurrency=1,2,4,8 or rate=100..1600 (doubling) or "
        "rate=100..500:100 (steps)",
    )
    load.add_argument(
        "--slo-p99-ms",
        type=_positive,
        metavar="MS",
        help="p99 objective of the sweep: stop at the first load that violates it, find the knee",
    )
    load.add_argument(
        "--refine",
        type=_not_negative,
        default=3,
        metavar="N",
        help="with --slo-p99-ms: additional loads that narrow down the knee (default: 3)",
    )
    load.add_argument(
        "--connections",
        type=_count,
        metavar="N",
        help="connections of all processes together (default: one per process)",
    )
    load.add_argument(
        "--processes",
        type=_count,
        default=1,
        metavar="N",
        help="processes of the load tester, if one is slower than the server (default: 1)",
    )
    load.add_argument(
        "--max-in-flight",
        type=_count,
        default=10_000,
        metavar="N",
        help="open loop: calls in flight per process at which sends wait (default: 10000)",
    )
    load.add_argument(
        "--retries",
        type=_not_negative,
        default=0,
        metavar="N",
        help="retries after UNAVAILABLE and RESOURCE_EXHAUSTED (default: 0)",
    )
    _add_time(parser)
    _add_requests(parser)
    _add_report(parser)


def _add_time(parser: argparse.ArgumentParser) -> None:
    time = parser.add_argument_group("time")
    time.add_argument(
        "--duration-s",
        type=_positive,
        default=10.0,
        metavar="SECONDS",
        help="measured time of a run (default: 10)",
    )
    time.add_argument(
        "--warm-up-s",
        type=_seconds,
        default=2.0,
        metavar="SECONDS",
        help="warm-up before the measured time (default: 2)",
    )
    time.add_argument(
        "--stable-within",
        type=_share,
        metavar="SHARE",
        help="end once the 95 %% confidence intervals of rate and p99 are within this share of "
        "their means, for example 5%%; the run fails if --duration-s passes first",
    )
    time.add_argument(
        "--window-s",
        type=_positive,
        metavar="SECONDS",
        help="width of the windows for the confidence intervals (default: a tenth of --duration-s)",
    )


def _add_requests(parser: argparse.ArgumentParser) -> None:
    requests = parser.add_argument_group("requests")
    requests.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="latentserve",
        help="oip: any server of the Open Inference Protocol; --model is its model",
    )
    requests.add_argument(
        "--images",
        default="synthetic",
        metavar="SOURCE",
        help="synthetic, digits (bundled), an IDX file, an image file, or a folder of MNIST IDX "
        "files or image files (default: synthetic)",
    )
    requests.add_argument(
        "--pool",
        type=_count,
        default=32,
        metavar="N",
        help="distinct requests of each kind, used in turn (default: 32)",
    )
    requests.add_argument(
        "--seed",
        type=_not_negative,
        default=0,
        metavar="SEED",
        help="seed of inputs, sizes, order and Poisson arrivals (default: 0)",
    )
    requests.add_argument(
        "--validate",
        type=_share,
        default=0.01,
        metavar="SHARE",
        help="share of the replies to compare with the reference replies; 0: none (default: 1%%)",
    )
    requests.add_argument(
        "--tolerance",
        type=_positive,
        default=1e-3,
        metavar="X",
        help="allowed difference of floats of magnitude 1 from the reference (default: 0.001)",
    )
    requests.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="cq",
        help="cq: grpcio's completion queue; aio: grpc.aio, the slower public API (default: cq)",
    )


def _add_report(parser: argparse.ArgumentParser) -> None:
    report = parser.add_argument_group("report")
    report.add_argument(
        "--out",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="also write the report as .json, .csv or .html; may be repeated",
    )
    report.add_argument(
        "--metrics-url",
        metavar="URL",
        help="Prometheus metrics of the server, read before and after: CPU, memory and batches",
    )
    report.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help="exit with code 1 if it holds, for example 'p99>20ms' or 'errors>0'; may be repeated",
    )
    report.add_argument(
        "--baseline", type=Path, metavar="REPORT.json", help="compare with an earlier JSON report"
    )


def _count(text: str) -> int:
    return _integer(text, 1)


def _not_negative(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, low: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if not low <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{number} is not {low} or more")
    return number


def _positive(text: str) -> float:
    number = _seconds(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative number")
    return number


def _share(text: str) -> float:
    """Read "5%" or "0.05"."""
    number = _seconds(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share like 5% or 0.05")
    return number
