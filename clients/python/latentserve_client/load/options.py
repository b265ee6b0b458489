"""The options of `latentserve load`, and what they mean together."""

from __future__ import annotations

import argparse
import math

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_client._base import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT_S
from latentserve_client.cli._inputs import UsageError
from latentserve_client.cli._security import metadata
from latentserve_client.load.conditions import BadCondition, Condition, parse_condition
from latentserve_client.load.connection import TRANSPORTS, Target
from latentserve_client.load.mix import BadMix, Entry, parse_mix
from latentserve_client.load.processes import Load
from latentserve_client.load.run import Timing
from latentserve_client.load.schedule import ARRIVALS, BadProfile, Profile, Segment, parse_profile
from latentserve_client.load.sweep import Axis, BadSweep, parse_sweep

PROTOCOLS = ("latentserve", "oip")
OUTPUTS = (".json", ".csv", ".html")
_DEFAULT_MIX = {"latentserve": "reconstruct", "oip": "infer"}
_DEFAULT_CONCURRENCY = 16
# What changes nothing about the load, or must not be written down.
_NOT_ECHOED = frozenset({"command", "token_file", "tls_key"})


@dataclass(frozen=True)
class Plan:
    """What the options ask for."""

    entries: tuple[Entry, ...]
    load: Load
    timing: Timing
    axis: Axis | None
    conditions: tuple[Condition, ...]
    slo_p99_ms: float | None = None
    refine: int = 0

    def at(self, load: float) -> Load:
        """Return the load of one point of the sweep."""
        if self.axis is None or self.axis.name == "concurrency":
            return Load(concurrency=int(load))
        profile = Profile((Segment(self.timing.duration_s, load, load),))
        return Load(profile=profile, arrivals=self.load.arrivals)


def read_plan(args: argparse.Namespace) -> Plan:
    """Check the options and return what they ask for. Raises UsageError."""
    timing = Timing(args.warm_up_s, args.duration_s, args.window_s or 0.0, args.stable_within)
    try:
        entries = parse_mix(args.mix or _DEFAULT_MIX[args.protocol], args.protocol)
        axis = parse_sweep(args.sweep) if args.sweep else None
        conditions = tuple(parse_condition(text) for text in args.fail_if)
        profile = parse_profile(args.rate, args.duration_s) if args.rate else None
    except (BadMix, BadSweep, BadCondition, BadProfile) as error:
        raise UsageError(str(error)) from None
    _check(args, axis, profile)
    if profile is not None:
        load = Load(profile=profile, arrivals=args.arrivals)
        timing = Timing(
            args.warm_up_s, profile.duration_s, args.window_s or 0.0, args.stable_within
        )
    else:
        load = Load(concurrency=args.concurrency or _DEFAULT_CONCURRENCY, arrivals=args.arrivals)
    _check_widths(args, axis, load)
    return Plan(entries, load, timing, axis, conditions, args.slo_p99_ms, args.refine)


def target(args: argparse.Namespace) -> Target:
    """Return where to connect. Raises UsageError, OSError for unreadable files."""
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key belong together; one of them is missing")
    return Target(
        args.server,
        DEFAULT_MAX_MESSAGE_BYTES,
        tuple(metadata(args)),
        bool(args.tls or args.tls_ca or args.tls_cert),
        args.tls_ca.read_bytes() if args.tls_ca else None,
        args.tls_cert.read_bytes() if args.tls_cert else None,
        args.tls_key.read_bytes() if args.tls_key else None,
    )


def timeout_s(args: argparse.Namespace) -> float:
    """Return the deadline of a call in seconds."""
    return float(args.timeout_s or DEFAULT_TIMEOUT_S)


def connections(args: argparse.Namespace) -> int:
    """Return the connections of all processes together."""
    return int(args.connections or args.processes)


def echo(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as plain values, secrets left out."""
    return {
        name: [str(item) for item in value]
        if isinstance(value, list)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in sorted(vars(args).items())
        if name not in _NOT_ECHOED
    }


def _check(args: argparse.Namespace, axis: Axis | None, profile: Profile | None) -> None:
    """Raise UsageError for options that do not go together."""
    if profile is not None and args.concurrency:
        raise UsageError(
            "--rate is an open loop and --concurrency a closed one; give one of the two"
        )
    if axis is not None and (profile is not None or args.concurrency):
        raise UsageError("--sweep says the load; leave --rate and --concurrency out")
    if axis is None and args.slo_p99_ms is not None:
        raise UsageError(
            "--slo-p99-ms is the objective of a --sweep; for one load use --fail-if 'p99>20ms'"
        )
    if profile is not None and args.stable_within is not None and not profile.is_constant:
        raise UsageError("--stable-within needs a constant load; this --rate changes")
    for out in args.out:
        if out.suffix not in OUTPUTS:
            raise UsageError(f"--out {out}: expected a name that ends in {', '.join(OUTPUTS)}")
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: there is no folder {out.parent}")


def _check_widths(args: argparse.Namespace, axis: Axis | None, load: Load) -> None:
    count = connections(args)
    if count < args.processes:
        raise UsageError(
            f"--connections {count} for --processes {args.processes}: each needs one of its own"
        )
    lowest = load.concurrency
    if axis is not None:
        lowest = int(axis.points[0]) if axis.name == "concurrency" else 0
    if lowest and lowest < args.processes:
        raise UsageError(
            f"{lowest} calls in flight for --processes {args.processes}: some would do nothing"
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    load = parser.add_argument_group("load")
    load.add_argument(
        "--mix",
        metavar="MIX",
        help="calls with weights and options, for example encode=5,sample=3:count=16 "
        "(default: reconstruct, or infer with --protocol oip); see docs/load-testing.md",
    )
    load.add_argument(
        "--concurrency", type=_count, metavar="N",
        help=f"closed loop: calls in flight, over all connections (default: {_DEFAULT_CONCURRENCY})",
    )  # fmt: skip
    load.add_argument(
        "--rate", metavar="RATE",
        help="open loop: calls per second, 200; steps, 100,200,400; a ramp, 100-500; "
        "each with seconds or without, 100-500:30,500:60",
    )  # fmt: skip
    load.add_argument(
        "--arrivals", choices=ARRIVALS, default="constant",
        help="open loop: evenly spaced, or at random as independent callers (default: constant)",
    )  # fmt: skip
    load.add_argument(
        "--sweep", metavar="AXIS",
        help="one run per load, concurrency=1,2,4,8 or rate=100..1600 (doubling) or "
        "rate=100..500:100 (steps)",
    )  # fmt: skip
    load.add_argument(
        "--slo-p99-ms", type=_positive, metavar="MS",
        help="objective of the sweep: end at the first load that breaks it, and find the knee",
    )  # fmt: skip
    load.add_argument(
        "--refine", type=_not_negative, default=3, metavar="N",
        help="with --slo-p99-ms: further loads that narrow the knee down (default: 3)",
    )  # fmt: skip
    load.add_argument(
        "--connections", type=_count, metavar="N",
        help="connections of all processes together (default: one for each process)",
    )  # fmt: skip
    load.add_argument(
        "--processes", type=_count, default=1, metavar="N",
        help="processes of the tester, where one is slower than the server (default: 1)",
    )  # fmt: skip
    load.add_argument(
        "--max-in-flight", type=_count, default=10_000, metavar="N",
        help="open loop: calls in flight of a process beyond which sends are late (default: 10000)",
    )  # fmt: skip
    load.add_argument(
        "--retries", type=_not_negative, default=0, metavar="N",
        help="further attempts after UNAVAILABLE and RESOURCE_EXHAUSTED (default: 0)",
    )  # fmt: skip
    _add_time(parser)
    _add_requests(parser)
    _add_report(parser)


def _add_time(parser: argparse.ArgumentParser) -> None:
    time = parser.add_argument_group("time")
    time.add_argument(
        "--duration-s", type=_positive, default=10.0, metavar="SECONDS",
        help="measured time of a run (default: 10)",
    )  # fmt: skip
    time.add_argument(
        "--warm-up-s", type=_seconds, default=2.0, metavar="SECONDS",
        help="load before it that is not measured (default: 2)",
    )  # fmt: skip
    time.add_argument(
        "--stable-within", type=_share, metavar="SHARE",
        help="end as soon as the 95 %% confidence intervals of rate and p99 are within this share "
        "of their means, for example 5%%; --duration-s is the limit, and reaching it a failure",
    )  # fmt: skip
    time.add_argument(
        "--window-s", type=_positive, metavar="SECONDS",
        help="width of the windows that the intervals are from (default: a tenth of --duration-s)",
    )  # fmt: skip


def _add_requests(parser: argparse.ArgumentParser) -> None:
    requests = parser.add_argument_group("requests")
    requests.add_argument(
        "--protocol", choices=PROTOCOLS, default="latentserve",
        help="oip: any server of the Open Inference Protocol; --model is its model",
    )  # fmt: skip
    requests.add_argument(
        "--images", default="synthetic", metavar="SOURCE",
        help="synthetic, digits (bundled), an IDX file, an image file, or a folder of MNIST's IDX "
        "files or of image files (default: synthetic)",
    )  # fmt: skip
    requests.add_argument(
        "--pool", type=_count, default=32, metavar="N",
        help="different requests of each kind, used in turn (default: 32)",
    )  # fmt: skip
    requests.add_argument(
        "--load-seed", type=_not_negative, default=0, metavar="SEED",
        help="seed of inputs, sizes, order and Poisson arrivals (default: 0)",
    )  # fmt: skip
    requests.add_argument(
        "--validate", type=_share, default=0.01, metavar="SHARE",
        help="share of the replies that is compared with the answer at rest; 0: none (default: 1%%)",
    )  # fmt: skip
    requests.add_argument(
        "--tolerance", type=_positive, default=1e-3, metavar="X",
        help="how far floats of magnitude 1 may differ in that (default: 0.001)",
    )  # fmt: skip
    requests.add_argument(
        "--transport", choices=TRANSPORTS, default="cq",
        help="cq: grpcio's completion queue; aio: grpc.aio, the slower public API (default: cq)",
    )  # fmt: skip


def _add_report(parser: argparse.ArgumentParser) -> None:
    report = parser.add_argument_group("report")
    report.add_argument(
        "--out", type=Path, action="append", default=[], metavar="FILE",
        help="also write the report as .json, .csv or .html; may be given several times",
    )  # fmt: skip
    report.add_argument(
        "--metrics-url", metavar="URL",
        help="the server's Prometheus metrics, read before and after: its CPU, memory and batches",
    )  # fmt: skip
    report.add_argument(
        "--fail-if", action="append", default=[], metavar="CONDITION",
        help="exit with 1 where it holds, for example 'p99>20ms' or 'errors>0'; several may be given",
    )  # fmt: skip
    report.add_argument(
        "--baseline", type=Path, metavar="REPORT.json", help="compare with an earlier report"
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return number


def _share(text: str) -> float:
    """Read "5%" or "0.05"."""
    number = _seconds(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share like 5% or 0.05")
    return number
