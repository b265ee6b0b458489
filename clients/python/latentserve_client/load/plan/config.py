"""Configuration of a load test, read from the command line and checked."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentserve_client._base import DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT_S
from latentserve_client._command_line import UsageError
from latentserve_client._security import metadata
from latentserve_client.load.plan.conditions import BadCondition, Condition, parse_condition
from latentserve_client.load.plan.mix import BadMix, MixEntry, parse_mix
from latentserve_client.load.plan.options import DEFAULT_CONCURRENCY
from latentserve_client.load.plan.run_spec import LoadSpec, RunTiming
from latentserve_client.load.plan.schedule import (
    BadProfile,
    RateProfile,
    RateSegment,
    parse_profile,
)
from latentserve_client.load.plan.sweep_axis import BadSweep, SweepAxis, parse_sweep
from latentserve_client.load.plan.target import Target

OUTPUTS = (".json", ".csv", ".html")
_DEFAULT_MIX = {"latentserve": "reconstruct", "oip": "infer"}
# Options that do not affect the load, or are secret.
_NOT_ECHOED = frozenset({"command", "token_file", "tls_key"})


@dataclass(frozen=True)
class LoadTestConfig:
    """Checked configuration of a load test."""

    entries: tuple[MixEntry, ...]
    load: LoadSpec
    timing: RunTiming
    axis: SweepAxis | None
    conditions: tuple[Condition, ...]
    slo_p99_ms: float | None = None
    refine: int = 0

    def at(self, load: float) -> LoadSpec:
        """Return the load of one point of the sweep: a concurrency, or calls per second."""
        if self.axis is None or self.axis.name == "concurrency":
            return LoadSpec(concurrency=int(load))
        profile = RateProfile((RateSegment(self.timing.duration_s, load, load),))
        return LoadSpec(profile=profile, arrivals=self.load.arrivals)


def read_config(args: argparse.Namespace) -> LoadTestConfig:
    """Return the configuration. Raises UsageError for invalid or conflicting options."""
    timing = RunTiming(args.warm_up_s, args.duration_s, args.window_s or 0.0, args.stable_within)
    try:
        entries = parse_mix(args.mix or _DEFAULT_MIX[args.protocol], args.protocol)
        axis = parse_sweep(args.sweep) if args.sweep else None
        conditions = tuple(parse_condition(text) for text in args.fail_if)
        profile = parse_profile(args.rate, args.duration_s) if args.rate else None
    except (BadMix, BadSweep, BadCondition, BadProfile) as error:
        raise UsageError(str(error)) from None
    _check(args, axis, profile)
    if profile is not None:
        load = LoadSpec(profile=profile, arrivals=args.arrivals)
        timing = RunTiming(
            args.warm_up_s, profile.duration_s, args.window_s or 0.0, args.stable_within
        )
    else:
        load = LoadSpec(concurrency=args.concurrency or DEFAULT_CONCURRENCY, arrivals=args.arrivals)
    _check_widths(args, axis, load)
    return LoadTestConfig(entries, load, timing, axis, conditions, args.slo_p99_ms, args.refine)


def read_target(args: argparse.Namespace) -> Target:
    """Return the target. Raises UsageError, and OSError for unreadable files."""
    if bool(args.tls_cert) != bool(args.tls_key):
        raise UsageError("--tls-cert and --tls-key must be given together")
    return Target(
        args.server,
        DEFAULT_MAX_MESSAGE_BYTES,
        tuple(metadata(args)),
        bool(args.tls or args.tls_ca or args.tls_cert),
        args.tls_ca.read_bytes() if args.tls_ca else None,
        args.tls_cert.read_bytes() if args.tls_cert else None,
        args.tls_key.read_bytes() if args.tls_key else None,
    )


def call_timeout_s(args: argparse.Namespace) -> float:
    """Return the timeout of a call in seconds."""
    return float(args.timeout_s or DEFAULT_TIMEOUT_S)


def connection_count(args: argparse.Namespace) -> int:
    """Return the number of connections of all processes together."""
    return int(args.connections or args.processes)


def echoed_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as plain values, without secrets."""
    return {
        name: [str(item) for item in value]
        if isinstance(value, list)
        else str(value)
        if isinstance(value, Path)
        else value
        for name, value in sorted(vars(args).items())
        if name not in _NOT_ECHOED
    }


def _check(args: argparse.Namespace, axis: SweepAxis | None, profile: RateProfile | None) -> None:
    """Raise UsageError for options that conflict."""
    if profile is not None and args.concurrency:
        raise UsageError(
            "--rate is an open loop, --concurrency is a closed loop; give only one of them"
        )
    if axis is not None and (profile is not None or args.concurrency):
        raise UsageError("--sweep sets the load; omit --rate and --concurrency")
    if axis is None and args.slo_p99_ms is not None:
        raise UsageError(
            "--slo-p99-ms requires --sweep; for a single load use --fail-if 'p99>20ms'"
        )
    if profile is not None and args.stable_within is not None and not profile.is_constant:
        raise UsageError("--stable-within requires a constant load; this --rate varies")
    for out in args.out:
        if out.suffix not in OUTPUTS:
            raise UsageError(f"--out {out}: the name must end in {', '.join(OUTPUTS)}")
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: the folder {out.parent} does not exist")


def _check_widths(args: argparse.Namespace, axis: SweepAxis | None, load: LoadSpec) -> None:
    count = connection_count(args)
    if count < args.processes:
        raise UsageError(
            f"--connections {count} for --processes {args.processes}: "
            "each process needs at least one connection"
        )
    lowest = load.concurrency
    if axis is not None:
        lowest = int(axis.points[0]) if axis.name == "concurrency" else 0
    if lowest and lowest < args.processes:
        raise UsageError(
            f"{lowest} calls in flight for --processes {args.processes}: "
            "each process needs at least one call"
        )
