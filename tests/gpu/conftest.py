"""Skips the tests that need a GPU, with a reason, on machines without one."""

from __future__ import annotations

import pytest

from latentserve_server.engine.device import choose_device
from latentserve_server.errors import DeviceUnavailable


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the `gpu` marker as skipped, with the missing part as the reason."""
    try:
        choose_device("cuda")
    except DeviceUnavailable as error:
        reason = f"NOT CHECKED ON A GPU: {error}"
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=reason))
