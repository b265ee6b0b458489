"""Consistency of docker-compose.yml, .env.example and the settings of the server."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from deploy_files import DEPLOY
from latentserve_server.config import Settings, read_settings

yaml = pytest.importorskip("yaml")
ROOT = DEPLOY.parent
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
OVERLAYS = "".join(path.read_text("utf-8") for path in DEPLOY.glob("compose.*.yml"))
COMPOSE = yaml.safe_load(TEXT)
SERVERS = ("server", "server-gpu")


def test_env_example_has_every_variable_with_its_default() -> None:
    used = dict(re.findall(r"\$\{(\w+):?-([^}]*)\}", TEXT + OVERLAYS))
    example = (ROOT / ".env.example").read_text("utf-8")
    documented = dict(re.findall(r"^#(\w+)=(\S*)", example, re.MULTILINE))
    # The selection of a GPU is not a default.
    del documented["COMPOSE_PROFILES"]
    documented["LATENTSERVE_SERVERS"] = re.findall(r"^#LATENTSERVE_SERVERS=(\S+)", example, re.M)[0]
    assert documented == used


@pytest.mark.parametrize("service", SERVERS)
def test_an_init_process_passes_on_signals_before_the_server_handles_them(service: str) -> None:
    assert COMPOSE["services"][service]["init"] is True


@pytest.mark.parametrize("service", SERVERS)
def test_environment_variables_are_settings_of_the_server(service: str) -> None:
    environment = {
        name: re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", value)
        for name, value in COMPOSE["services"][service]["environment"].items()
    }
    known = {f"LATENTSERVE_{field.name.upper()}" for field in fields(Settings)}
    assert set(environment) <= known | {"NO_PROXY", "no_proxy"}
    settings = read_settings(["--exports", str(ROOT / "exports")], environment)
    stop_s = float(COMPOSE["services"][service]["stop_grace_period"].removesuffix("s"))
    assert settings.drain_delay_s + settings.grace_s + 30 <= stop_s


def test_calls_between_the_services_use_no_proxy() -> None:
    calling = set(COMPOSE["services"]) - {"envoy"}  # which knows no proxy
    assert {"server", "load", "reload", "prometheus"} <= calling
    for name in calling:
        environment = COMPOSE["services"][name]["environment"]
        assert environment["no_proxy"] == environment["NO_PROXY"]
        excluded = set(environment["no_proxy"].split(","))
        assert {"localhost", "127.0.0.1", "server", "envoy", "prometheus"} <= excluded
        # Containers call each other's addresses, too: deploy/reload.sh, Prometheus.
        assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= excluded


def test_services_are_hardened_and_have_limits() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"]["max-size"], name
        if service["restart"] != "no":
            assert service["deploy"]["resources"]["limits"]["memory"], name


def test_images_are_pinned_by_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    bases = [
        re.findall(r"^ARG BASE=(\S+)", (ROOT / part / "Dockerfile").read_text("utf-8"), re.M)[0]
        for part in ("server", "training")
    ]
    for image in [*(re.sub(r"\$\{\w+:-(.*)\}", r"\1", i) for i in images), *bases]:
        name, _, tag = image.partition(":")
        assert tag, image
        assert tag != "latest", image
        assert name.startswith("latentserve") or re.search(r"\d+\.\d+", tag), image


def test_ports_are_on_loopback_by_default() -> None:
    ports = _published()
    assert ports
    for port in ports:
        assert re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port).startswith("127.0.0.1:"), port


def _published() -> list[str]:
    services: dict[str, Any] = COMPOSE["services"]
    return [port for service in services.values() for port in service.get("ports", [])]
