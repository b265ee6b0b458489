"""Settings of the server: flags, then environment variables, then defaults; validated once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from latentserve_server.batching.quota import QueueQuota
from latentserve_server.engine.cuda_options import CONV_SEARCHES, CudaOptions
from latentserve_server.errors import SettingsError
from latentserve_server.model_limits import Limits, parse_by_model
from latentserve_server.observability.logs.format import FORMATS, LEVELS

ENVIRONMENT_PREFIX = "LATENTSERVE_"
# Largest int32 and int64 of the wire contract.
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
TRANSPORTS = ("aio", "cq")
DEVICES = ("auto", "cpu", "cuda")
YES_OR_NO = ("yes", "no")
_MAX_DELAY_MS = 10_000.0
# Default of the total queue limits, as a multiple of the limits of one model.
_TOTAL_QUEUE_FACTOR = 4
_CUDA = (
    *("device_id", "gpu_mem_limit_mb", "io_binding", "cuda_graphs"),
    *("tf32", "prefer_nhwc", "conv_search"),
)


@dataclass(frozen=True)
class Settings:
    """Settings of the operator. Every field is a flag and an environment variable."""

    exports: Annotated[Path, "folder of <name>/<version>/ model folders"] = Path("exports")
    listen: Annotated[str, "HOST:PORT to serve on; port 0: any free port"] = "127.0.0.1:50051"
    device: Annotated[str, "auto, cpu or cuda; cuda fails if CUDA cannot be used"] = "auto"
    device_id: Annotated[int, "which GPU, counted from 0"] = 0
    gpu_mem_limit_mb: Annotated[int, "largest GPU arena of each graph in MiB; 0: no limit"] = 0
    io_binding: Annotated[str, "yes to keep input and output buffers on the GPU"] = "yes"
    cuda_graphs: Annotated[str, "yes to replay batches, padded to 1, 2, 4, ... rows"] = "no"
    tf32: Annotated[str, "yes to allow TF32 (10-bit mantissas) on the GPU"] = "no"
    prefer_nhwc: Annotated[str, "yes to run convolutions channels-last on the GPU"] = "no"
    conv_search: Annotated[str, "cuDNN's algorithm search: heuristic, exhaustive or default"] = (
        "heuristic"
    )
    tls_cert: Annotated[str, "PEM file of the server's certificate chain; empty: plain text"] = ""
    tls_key: Annotated[str, "PEM file of the server's private key"] = ""
    tls_client_ca: Annotated[
        str, "PEM file of the authorities whose client certificates are required; empty: none"
    ] = ""
    token_file: Annotated[
        str, "file with the bearer token that clients must send; or LATENTSERVE_TOKEN"
    ] = ""
    reload_token_file: Annotated[
        str, "file with the token for ReloadModels only; or LATENTSERVE_RELOAD_TOKEN"
    ] = ""
    allow_plaintext_token: Annotated[str, "yes to accept tokens without TLS, behind a proxy"] = "no"
    metrics_listen: Annotated[
        str, "HOST:PORT to serve Prometheus metrics on, over HTTP; empty: off"
    ] = ""
    default_model: Annotated[
        str, "model of requests that name none; empty: the only model in the folder"
    ] = ""
    threads: Annotated[int, "ONNX Runtime threads of each model; 0: cores / workers / models"] = 0
    max_batch_rows: Annotated[int, "largest number of rows in one batch"] = 64
    model_max_batch_rows: Annotated[
        str, "the same for single models: mnist-ae=256,mnist-vae=16"
    ] = ""
    max_delay_ms: Annotated[
        float, "longest wait of a batch for more rows in ms; 0: an idle engine starts at once"
    ] = 0.0
    model_max_delay_ms: Annotated[str, "the same for single models: mnist-ae=2,mnist-vae=0.5"] = ""
    max_request_rows: Annotated[int, "largest number of images or latents in one request"] = 1024
    max_stream_rows: Annotated[int, "largest number of images in one SampleStream"] = 1_000_000
    queue_rows: Annotated[int, "largest number of queued rows of one model"] = 4096
    queue_bytes: Annotated[int, "largest size of the queued rows of one model in bytes"] = 2**28
    total_queue_rows: Annotated[
        int, "largest number of queued rows of all models; 0: four times --queue-rows"
    ] = 0
    total_queue_bytes: Annotated[
        int, "largest size of the queued rows of all models in bytes; 0: four times --queue-bytes"
    ] = 0
    max_versions: Annotated[int, "largest number of model versions"] = 64
    poll_s: Annotated[
        float, "seconds between scans of the model folder for changes; 0: only on request"
    ] = 0.0
    max_connections: Annotated[int, "largest number of connections of each process"] = 512
    max_concurrent_streams: Annotated[
        int, "largest number of calls in flight on one connection"
    ] = 1024
    reply_bytes: Annotated[
        int, "largest size of the unwritten replies of one connection in bytes"
    ] = 2**26
    total_reply_bytes: Annotated[
        int, "largest size of the unwritten replies of all connections in bytes"
    ] = 2**28
    reader_idle_s: Annotated[
        float, "longest time that a reply may wait for its client to read it in seconds"
    ] = 120.0
    max_call_s: Annotated[float, "longest duration of a call without a deadline in seconds"] = 600.0
    handshake_timeout_s: Annotated[
        float, "timeout of the TLS and HTTP/2 handshake of a new connection in seconds"
    ] = 20.0
    drain_delay_s: Annotated[
        float, "seconds between NOT_SERVING and refusing calls at SIGTERM, for load balancers"
    ] = 0.0
    grace_s: Annotated[float, "timeout of calls in flight at SIGTERM in seconds"] = 30.0
    transport: Annotated[str, "cq: grpcio's completion queue; aio: grpc.aio, more CPU per call"] = (
        "cq"
    )
    workers: Annotated[
        int, "number of processes that serve the port; above 1, a supervisor starts them"
    ] = 1
    reuse_port: Annotated[
        str, "yes to share the port with another server, for a rolling restart"
    ] = "no"
    watchdog_s: Annotated[
        float,
        "seconds without a finished batch, while work is pending, until health is "
        "NOT_SERVING; 0: off",
    ] = 30.0
    watchdog_exit: Annotated[str, "yes to end a stuck process so that it is replaced"] = "no"
    log_format: Annotated[str, "readable, or json: one object per line"] = "readable"
    log_level: Annotated[str, "debug, info, warning or error"] = "info"
    log_requests: Annotated[str, "yes to log every call, not only failed ones"] = "no"

    otlp_endpoint: Annotated[
        str, "http(s)://HOST:PORT to send traces to, with OTLP over gRPC; empty: off"
    ] = ""

    def __post_init__(self) -> None:
        _check_choice("device", self.device, DEVICES)
        _check_choice("transport", self.transport, TRANSPORTS)
        _check_choice("log-format", self.log_format, FORMATS)
        _check_choice("log-level", self.log_level, LEVELS)
        _check_choice("conv-search", self.conv_search, CONV_SEARCHES)
        for name in (
            *("allow_plaintext_token", "reuse_port", "watchdog_exit", "log_requests"),
            *("io_binding", "cuda_graphs", "tf32", "prefer_nhwc"),
        ):
            _check_choice(_flag(name), getattr(self, name), YES_OR_NO)
        for name, lowest, highest in (
            ("workers", 1, 64),
            ("device_id", 0, 1023),
            ("gpu_mem_limit_mb", 0, _INT32),
            ("threads", 0, 1024),
            ("max_batch_rows", 1, _INT32),
            ("max_request_rows", 1, _INT32),
            ("max_stream_rows", 1, _INT64),
            ("max_delay_ms", 0, _MAX_DELAY_MS),
            ("queue_rows", 1, _INT64),
            ("queue_bytes", 1, _INT64),
            ("total_queue_rows", 0, _INT64),
            ("total_queue_bytes", 0, _INT64),
            ("max_versions", 1, 10_000),
            ("max_connections", 1, _INT32),
            ("max_concurrent_streams", 1, _INT32),
            ("reply_bytes", 1, _INT64),
            ("total_reply_bytes", 1, _INT64),
            ("reader_idle_s", 0.1, 86_400),
            ("max_call_s", 0.1, 30 * 86_400),
            ("handshake_timeout_s", 0.1, 3600),
            ("poll_s", 0, 86_400),
            ("drain_delay_s", 0, 3600),
            ("grace_s", 0, 3600),
            ("watchdog_s", 0, 86_400),
        ):
            if not lowest <= getattr(self, name) <= highest:
                raise SettingsError(
                    f"--{_flag(name)} is {getattr(self, name)}, expected {lowest} to {highest}"
                )
        if self.queue_rows < self.max_request_rows:
            raise SettingsError(
                f"--queue-rows is {self.queue_rows}, below --max-request-rows "
                f"{self.max_request_rows}: the largest request could never be admitted"
            )
        # One half of the total may be reserved for other models, see `batching.quota`.
        if self.total_rows < 2 * self.max_request_rows:
            raise SettingsError(
                f"--total-queue-rows is {self.total_queue_rows}, expected at least twice "
                f"--max-request-rows {self.max_request_rows}, or 0: one half is reserved for "
                "other models, and the largest request could never be admitted"
            )
        self._batch_rows_by_model()
        self._delay_ms_by_model()
        self._check_cuda()
        _check_address("listen", self.listen)
        if self.metrics_listen:
            _check_address("metrics-listen", self.metrics_listen)
        if self.otlp_endpoint:
            _check_url("otlp-endpoint", self.otlp_endpoint)
        if not self.exports.is_dir():
            raise SettingsError(
                f"--exports {self.exports} is not a folder. Train and export a model into it, "
                "or point it at the folder of your exports"
            )

    @property
    def shares_port(self) -> bool:
        """Whether several processes listen on the port."""
        return self.workers > 1 or self.reuse_port == "yes"

    @property
    def total_rows(self) -> int:
        """Largest number of queued rows of all models."""
        return self.total_queue_rows or _TOTAL_QUEUE_FACTOR * self.queue_rows

    @property
    def total_bytes(self) -> int:
        """Largest size of the queued rows of all models, in bytes."""
        return self.total_queue_bytes or _TOTAL_QUEUE_FACTOR * self.queue_bytes

    @property
    def largest_batch_rows(self) -> int:
        """Rows of the largest batch of any model."""
        return max(self.max_batch_rows, *self._batch_rows_by_model().values(), 1)

    def queue_quota(self) -> QueueQuota:
        """Return a new quota for all models of a process."""
        return QueueQuota(max_rows=self.total_rows, max_bytes=self.total_bytes)

    @property
    def named_models(self) -> frozenset[str]:
        """The models that settings name."""
        return frozenset(self._batch_rows_by_model()) | frozenset(self._delay_ms_by_model())

    def limits(self, model: str) -> Limits:
        """Return the limits of a model."""
        return Limits(
            max_batch_rows=self._batch_rows_by_model().get(model, self.max_batch_rows),
            queue_rows=self.queue_rows,
            queue_bytes=self.queue_bytes,
            max_delay_s=self._delay_ms_by_model().get(model, self.max_delay_ms) / 1000,
            request_rows=self.max_request_rows,
            request_bytes=self.total_bytes // 2,
        )

    def _batch_rows_by_model(self) -> dict[str, int]:
        return parse_by_model("model-max-batch-rows", self.model_max_batch_rows, int, 1, _INT32)

    def _delay_ms_by_model(self) -> dict[str, float]:
        flag, text = "model-max-delay-ms", self.model_max_delay_ms
        return parse_by_model(flag, text, float, 0.0, _MAX_DELAY_MS)

    @property
    def cuda_options(self) -> CudaOptions:
        """Options for CUDA."""
        return CudaOptions(
            device_id=self.device_id,
            mem_limit_mb=self.gpu_mem_limit_mb,
            tf32=self.tf32 == "yes",
            prefer_nhwc=self.prefer_nhwc == "yes",
            conv_search=self.conv_search,
            io_binding=self.io_binding == "yes",
            cuda_graphs=self.cuda_graphs == "yes",
        )

    def _check_cuda(self) -> None:
        """Raise SettingsError for CUDA options that contradict another setting."""
        if self.cuda_graphs == "yes" and self.io_binding == "no":
            raise SettingsError(
                "--cuda-graphs yes needs --io-binding yes: a graph is replayed on fixed buffers"
            )
        changed = [_flag(name) for name in _CUDA if getattr(self, name) != getattr(Settings, name)]
        if self.device == "cpu" and changed:
            # An explicit contradiction is an error; `auto` only logs a warning.
            raise SettingsError(
                f"--device cpu, but --{changed[0]} is for CUDA: leave it out, or choose "
                "--device cuda or auto"
            )

    def describe(self) -> str:
        """Return the settings in one line."""
        return " ".join(f"{_flag(f.name)}={getattr(self, f.name)}" for f in fields(self))


def read_settings(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings of a command line and an environment.

    Raises SettingsError, which names the flag or the variable. argparse ends the process for
    unknown flags and for --help.
    """
    parser = argparse.ArgumentParser(
        prog="latentserve-server",
        description="Serves generative models of images over gRPC.",
        epilog="Every flag can also be set as an environment variable: "
        f"{ENVIRONMENT_PREFIX}MAX_BATCH_ROWS=64",
    )
    settings = {
        name: (*get_args(hint), getattr(Settings, name))
        for name, hint in get_type_hints(Settings, include_extras=True).items()
    }
    for name, (_, text, default) in settings.items():
        parser.add_argument(
            f"--{_flag(name)}",
            dest=name,
            metavar=name.rpartition("_")[2].upper(),
            help=text if default == "" else f"{text} (default: {default})",
        )
    flags = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for name, (kind, _, _) in settings.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if flags[name] is not None:
            source, text = f"--{_flag(name)}", flags[name]
        elif variable in environment:
            source, text = variable, environment[variable]
        else:
            continue
        try:
            values[name] = kind(text)
        except ValueError as error:
            raise SettingsError(f"{source} is {text!r}, expected {_KINDS[kind]}") from error
    return Settings(**values)


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _check_address(flag: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"--{flag} is {address!r}, expected HOST:PORT")


def _check_url(flag: str, url: str) -> None:
    scheme, _, address = url.removesuffix("/").partition("://")
    if "@" in address:
        raise SettingsError(
            f"--{flag} contains a user or password, which the log would show; "
            "set OTEL_EXPORTER_OTLP_HEADERS instead"
        )
    host, _, port = address.rpartition(":")
    if scheme not in ("http", "https") or not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"--{flag} is {url!r}, expected http://HOST:PORT, or https:// with TLS")


def _check_choice(flag: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SettingsError(f"--{flag} is {value!r}, expected one of {', '.join(choices)}")
