"""Tests of the settings: precedence of flags, variables and defaults, and invalid values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from latentserve_server.config import Settings, read_settings
from latentserve_server.engine.cuda_options import CudaOptions
from latentserve_server.errors import SettingsError, StartupError


@pytest.fixture(autouse=True)
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with the default exports/."""
    folder = tmp_path / "exports"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def read(*arguments: str, **environment: str) -> Settings:
    return read_settings(arguments, environment)


def refusal(*arguments: str, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        read(*arguments, **environment)
    return str(refused.value)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


# For each setting, one value that differs from its default.
OTHER = {
    "exports": "models",
    "listen": "0.0.0.0:9000",
    "device": "cpu",
    "device_id": "1",
    "gpu_mem_limit_mb": "2048",
    "io_binding": "no",
    "cuda_graphs": "yes",
    "tf32": "yes",
    "prefer_nhwc": "yes",
    "conv_search": "exhaustive",
    "default_model": "mnist-vae",
    "threads": "3",
    "max_batch_rows": "17",
    "model_max_batch_rows": "mnist-ae=256,mnist-vae=16",
    "max_delay_ms": "2.5",
    "model_max_delay_ms": "mnist-ae=2,mnist-vae=0.5",
    "max_request_rows": "99",
    "max_stream_rows": "500",
    "queue_rows": "2048",
    "queue_bytes": "1000000",
    "total_queue_rows": "5000",
    "total_queue_bytes": "3000000",
    "max_versions": "2",
    "poll_s": "1.5",
    "metrics_listen": "127.0.0.1:9000",
    "tls_cert": "cert.pem",
    "tls_key": "key.pem",
    "tls_client_ca": "ca.pem",
    "token_file": "token",
    "reload_token_file": "reload-token",
    "allow_plaintext_token": "yes",
    "max_connections": "5",
    "max_concurrent_streams": "10",
    "reply_bytes": "100000",
    "total_reply_bytes": "200000",
    "reader_idle_s": "7.5",
    "max_call_s": "8.5",
    "handshake_timeout_s": "1.5",
    "drain_delay_s": "2.5",
    "grace_s": "0.5",
    "transport": "aio",
    "workers": "2",
    "reuse_port": "yes",
    "watchdog_s": "12.5",
    "watchdog_exit": "yes",
    "log_format": "json",
    "log_level": "debug",
    "log_requests": "yes",
    "otlp_endpoint": "http://collector:4317",
}
NAMES = [field.name for field in dataclasses.fields(Settings)]


def test_the_table_has_every_setting() -> None:
    assert sorted(OTHER) == sorted(NAMES)


def test_the_default_address_is_on_the_loopback_interface() -> None:
    settings = read()
    assert settings == Settings()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.device == "auto"
    assert settings.exports == Path("exports")


@pytest.mark.parametrize("name", NAMES)
class TestEverySetting:
    @pytest.fixture(autouse=True)
    def models(self, tmp_path: Path) -> None:
        (tmp_path / "models").mkdir()

    def test_is_a_flag(self, name: str) -> None:
        settings = read(flag(name), OTHER[name])
        assert str(getattr(settings, name)) == OTHER[name]
        assert getattr(settings, name) != getattr(Settings(), name)

    def test_is_a_variable(self, name: str) -> None:
        settings = read(**{"LATENTSERVE_" + name.upper(): OTHER[name]})
        assert str(getattr(settings, name)) == OTHER[name]

    def test_takes_the_flag_where_both_are_given(self, name: str) -> None:
        settings = read(flag(name), OTHER[name], **{"LATENTSERVE_" + name.upper(): "rubbish"})
        assert str(getattr(settings, name)) == OTHER[name]

    def test_has_the_type_of_its_default(self, name: str) -> None:
        settings = read(flag(name), OTHER[name])
        assert isinstance(getattr(settings, name), type(getattr(Settings(), name)))

    def test_is_explained_by_help(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            read("--help")
        assert ended.value.code == 0
        text = capsys.readouterr().out
        assert flag(name) + " " in text
        assert "LATENTSERVE_" in text

    def test_is_part_of_the_logged_description(self, name: str) -> None:
        line = read(flag(name), OTHER[name]).describe()
        assert f"{name.replace('_', '-')}={OTHER[name]}" in line
        assert "\n" not in line


def test_an_empty_variable_of_a_text_is_an_empty_text() -> None:
    assert read(LATENTSERVE_DEFAULT_MODEL="").default_model == ""


CUDA = (
    *("device_id", "gpu_mem_limit_mb", "io_binding", "cuda_graphs"),
    *("tf32", "prefer_nhwc", "conv_search"),
)


@pytest.mark.parametrize("name", CUDA)
def test_a_cuda_option_with_device_cpu_is_refused(name: str) -> None:
    reason = refusal("--device", "cpu", flag(name), OTHER[name])
    assert f"--device cpu, but {flag(name)} is for CUDA" in reason
    assert "auto" in reason
    default = str(getattr(Settings(), name))
    assert read("--device", "cpu", flag(name), default).device == "cpu"
    assert read("--device", "auto", flag(name), OTHER[name]).device == "auto"


def test_cuda_graphs_need_io_binding() -> None:
    reason = refusal("--cuda-graphs", "yes", "--io-binding", "no")
    assert "--cuda-graphs yes needs --io-binding yes" in reason


def test_cuda_options_are_passed_on() -> None:
    assert read().cuda_options == CudaOptions()
    chosen = [text for name in CUDA if name != "io_binding" for text in (flag(name), OTHER[name])]
    assert read(*chosen).cuda_options == CudaOptions(1, 2048, True, True, "exhaustive", True, True)
    assert read("--io-binding", "no").cuda_options == CudaOptions(io_binding=False)


BAD_VALUES = [
    ("conv_search", "fast", "expected one of heuristic, exhaustive, default"),
    ("cuda_graphs", "true", "expected one of yes, no"),
    ("device_id", "-1", "expected 0 to 1023"),
    ("gpu_mem_limit_mb", "-1", "expected 0 to"),
    ("device", "tpu", "expected one of auto, cpu, cuda"),
    ("transport", "carrier-pigeon", "expected one of aio, cq"),
    ("log_level", "loud", "expected one of debug, info, warning, error"),
    ("log_format", "xml", "expected one of readable, json"),
    ("log_requests", "true", "expected one of yes, no"),
    ("reuse_port", "1", "expected one of yes, no"),
    ("watchdog_exit", "maybe", "expected one of yes, no"),
    ("watchdog_s", "-1", "expected 0 to "),
    ("workers", "0", "expected 1 to "),
    ("workers", "65", "expected 1 to "),
    ("threads", "-1", "expected 0 to "),
    ("threads", "many", "expected a whole number"),
    ("threads", "1.5", "expected a whole number"),
    ("threads", "", "expected a whole number"),
    ("max_batch_rows", "0", "expected 1 to "),
    ("max_request_rows", "0", "expected 1 to "),
    ("max_stream_rows", "0", "expected 1 to "),
    ("queue_rows", "0", "expected 1 to "),
    ("queue_bytes", "0", "expected 1 to "),
    ("reply_bytes", "0", "expected 1 to "),
    ("total_reply_bytes", "0", "expected 1 to "),
    ("reader_idle_s", "0", "expected 0.1 to "),
    ("max_call_s", "0", "expected 0.1 to "),
    ("total_queue_rows", "-1", "expected 0 to "),
    ("total_queue_bytes", "-1", "expected 0 to "),
    ("total_queue_rows", "2047", "expected at least twice --max-request-rows 1024"),
    ("max_delay_ms", "-1", "expected 0 to "),
    ("max_delay_ms", "nan", "expected 0 to "),
    ("model_max_batch_rows", "256", "expected MODEL=NUMBER with a whole number from 1 to "),
    ("model_max_batch_rows", "a=", "expected MODEL=NUMBER"),
    ("model_max_batch_rows", "=3", "expected MODEL=NUMBER"),
    ("model_max_batch_rows", "a=0", "expected MODEL=NUMBER"),
    ("model_max_batch_rows", "a=1.5", "expected MODEL=NUMBER"),
    ("model_max_batch_rows", "a=3,,b=4", "expected MODEL=NUMBER"),
    ("model_max_batch_rows", "A_B=3", "expected MODEL=NUMBER"),
    ("model_max_delay_ms", "a=soon", "expected MODEL=NUMBER with a number from 0"),
    ("model_max_delay_ms", "a=nan", "expected MODEL=NUMBER"),
    ("model_max_delay_ms", "a=-1", "expected MODEL=NUMBER"),
    ("max_versions", "0", "expected 1 to "),
    ("max_concurrent_streams", "0", "expected 1 to "),
    ("drain_delay_s", "-0.1", "expected 0 to "),
    ("drain_delay_s", "nan", "expected 0 to "),
    ("grace_s", "soon", "expected a number"),
    ("grace_s", "nan", "expected 0 to "),
    ("listen", "50051", "expected HOST:PORT"),
    ("listen", ":50051", "expected HOST:PORT"),
    ("listen", "localhost", "expected HOST:PORT"),
    ("listen", "localhost:", "expected HOST:PORT"),
    ("listen", "localhost:http", "expected HOST:PORT"),
    ("listen", "localhost:65536", "expected HOST:PORT"),
    ("listen", "localhost:-1", "expected HOST:PORT"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD_VALUES)
def test_a_bad_flag_is_named_with_its_value_and_what_is_expected(
    name: str, value: str, expected: str
) -> None:
    reason = refusal(f"{flag(name)}={value}")
    assert flag(name) in reason
    assert value in reason
    assert expected in reason


@pytest.mark.parametrize(("name", "value", "expected"), BAD_VALUES)
def test_a_bad_variable_is_named_with_its_value_and_what_is_expected(
    name: str, value: str, expected: str
) -> None:
    variable = "LATENTSERVE_" + name.upper()
    reason = refusal(**{variable: value})
    assert variable in reason or flag(name) in reason
    assert value in reason
    assert expected in reason


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::1]:50051", "localhost:65535"])
def test_addresses_that_can_be_listened_on(listen: str) -> None:
    assert read("--listen", listen).listen == listen


def test_a_queue_smaller_than_the_largest_request_is_refused() -> None:
    reason = refusal("--queue-rows", "10", "--max-request-rows", "11")
    assert "--queue-rows is 10" in reason
    assert "--max-request-rows 11" in reason
    assert read("--queue-rows", "11", "--max-request-rows", "11").queue_rows == 11


def test_limits_of_one_model_override_the_general_limits() -> None:
    settings = read(
        *("--max-batch-rows", "64", "--model-max-batch-rows", " a=256, b=16 "),
        *("--max-delay-ms", "1", "--model-max-delay-ms", "b=2.5,c=0"),
        *("--queue-rows", "5000", "--queue-bytes", "7000"),
    )
    found = {name: settings.limits(name) for name in "abcd"}
    assert [found[name].max_batch_rows for name in "abcd"] == [256, 16, 64, 64]
    assert [found[name].max_delay_s for name in "abcd"] == [0.001, 0.0025, 0.0, 0.001]
    assert {(limits.queue_rows, limits.queue_bytes) for limits in found.values()} == {(5000, 7000)}
    assert settings.named_models == {"a", "b", "c"}


def test_a_model_that_is_named_twice_is_refused() -> None:
    reason = refusal("--model-max-batch-rows", "a=3,b=4,a=5")
    assert reason == "--model-max-batch-rows names a twice"


def test_the_total_queue_limit_defaults_to_four_times_one_queue() -> None:
    settings = read("--queue-rows", "2000", "--queue-bytes", "300")
    assert (settings.total_rows, settings.total_bytes) == (8000, 1200)
    settings = read("--total-queue-rows", "2048", "--total-queue-bytes", "9")
    assert (settings.total_rows, settings.total_bytes) == (2048, 9)


def test_a_byte_limit_below_the_largest_request_is_reported() -> None:
    limits = read("--max-request-rows", "10", "--queue-bytes", "1000").limits("a")
    assert limits.shortage(100) == ""
    assert "a request of 10 rows of 101 bytes can never be admitted, only 9" in limits.shortage(101)
    limits = read("--max-request-rows", "10", "--total-queue-bytes", "2000").limits("a")
    assert limits.shortage(100) == ""
    assert "only 9 rows can" in limits.shortage(101)


def test_a_missing_model_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    reason = refusal("--exports", str(missing))
    assert f"--exports {missing}" in reason
    assert "export" in reason.partition("is not a folder")[2]


def test_a_model_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert f"--exports {file} is not a folder" in refusal("--exports", str(file))


def test_an_unknown_flag_ends_the_process_with_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--max-bach-rows", "3")
    assert ended.value.code == 2
    assert "--max-bach-rows" in capsys.readouterr().err


def test_bad_settings_are_startup_errors() -> None:
    assert issubclass(SettingsError, StartupError)


@pytest.mark.parametrize(
    "url",
    [
        "collector:4317",
        "http://collector",
        "grpc://collector:4317",
        "http://:4317",
        "http://c:99999",
    ],
)
def test_an_invalid_endpoint_for_traces_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"--otlp-endpoint is .* expected http://HOST:PORT"):
        read("--otlp-endpoint", url)


def test_an_endpoint_with_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        read("--otlp-endpoint", "http://me:secret@collector:4317")
    assert "secret" not in str(caught.value)


def test_settings_cannot_be_changed_after_the_check() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().threads = 4  # type: ignore[misc]  # must fail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch_rows", 2**31),
        ("max_request_rows", 2**31),
        ("max_stream_rows", 2**63),
    ],
)
def test_a_limit_that_the_wire_contract_cannot_express_is_refused_by_its_flag(
    name: str, value: int
) -> None:
    """The wire contract has int32 and int64; larger limits would end the server with a trace."""
    arguments = [f"{flag(name)}={value}"]
    if name == "max_request_rows":
        arguments.append(f"--queue-rows={value}")
    assert flag(name) in refusal(*arguments)


def test_the_port_is_shared_with_several_workers_or_reuse_port() -> None:
    assert not read().shares_port
    assert read("--workers", "2").shares_port
    assert read("--reuse-port", "yes").shares_port
