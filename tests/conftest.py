"""Hypothesis profiles: few deterministic examples, or many with `fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "every-run",
    max_examples=200,
    derandomize=True,
    database=None,
    deadline=None,  # no test asserts a duration
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# pytest --hypothesis-profile=fuzz
settings.register_profile(
    "fuzz", parent=settings.get_profile("every-run"), derandomize=False, max_examples=20_000
)
settings.load_profile("every-run")
