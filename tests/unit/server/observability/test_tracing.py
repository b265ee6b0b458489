"""Trace ids of calls, and the error without the extra `tracing`."""

from __future__ import annotations

import sys

import pytest

from latentserve_server.errors import SettingsError
from latentserve_server.observability.tracing import trace_id_of
from latentserve_server.observability.tracing_setup import open_tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_the_trace_id_of_a_client_is_known_without_tracing() -> None:
    assert trace_id_of(None, (("user-agent", "x"), ("traceparent", PARENT))) == TRACE_ID
    assert trace_id_of(None, (("traceparent", PARENT.replace("00-", "01-") + "-more"),)) == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        "",
        "rubbish",
        PARENT.upper(),
        PARENT + "\nforged",
        PARENT.replace("00-", "ff-"),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-b7ad6b7169203331-01",
        PARENT.encode(),
    ],
)
def test_an_invalid_traceparent_gives_no_trace_id(value: str | bytes) -> None:
    assert trace_id_of(None, (("traceparent", value),)) == ""


def test_a_call_without_metadata_has_no_trace_id() -> None:
    assert trace_id_of(None, None) == trace_id_of(None, ()) == ""


def test_without_an_endpoint_tracing_is_disabled() -> None:
    assert open_tracing("") is None


def test_the_error_of_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [key for key in sys.modules if key.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(
        sys.modules, "latentserve_server.observability.opentelemetry", raising=False
    )
    monkeypatch.setattr(sys, "meta_path", [_WithoutOpenTelemetry(), *sys.meta_path])
    with pytest.raises(SettingsError, match=r"pip install 'latentserve-server\[tracing\]'"):
        open_tracing("http://127.0.0.1:4317")


class _WithoutOpenTelemetry:
    """Import finder that simulates a missing extra."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
