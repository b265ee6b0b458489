import pytest

from latentserve_client.load.plan.conditions import BadCondition, parse_condition

RUN = {
    "rate_per_s": 950.0,
    "errors": 2,
    "error_share": 0.02,
    "latency": {"p99_ms": 20.5, "p99.9_ms": None, "mean_ms": 4.0},
    "late": {"calls": 7, "share": 0.1},
    "validation": {"wrong": 0},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99>20ms", True),
        ("p99>20.5ms", False),
        ("p99>=20.5ms", True),
        ("p99 > 0.02 s", True),
        ("p99<20500us", False),
        ("mean<=4ms", True),
        ("errors>0", True),
        ("errors>2", False),
        ("error_share>1%", True),
        ("error_share>0.02", False),
        ("rate<1000", True),
        ("rate<900/s", False),
        ("late>7", False),
        ("late_share>=10%", True),
        ("wrong>0", False),
    ],
)
def test_compares(text, holds):
    assert parse_condition(text).evaluate(RUN)[0] is holds


@pytest.mark.parametrize("text", ["p99.9<1s", "queue_share>50%"])
def test_a_missing_measurement_fails_the_run(text):
    assert parse_condition(text).evaluate(RUN) == (True, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p99", "expected a comparison"),
        ("p99>20", "requires a unit"),
        ("p98>20ms", "unknown measurement 'p98'; expected one of mean, p50"),
        ("errors>0ms", "is invalid for errors"),
        ("rate>1%", "expected /s"),
        ("rate=5", "expected a comparison"),
        ("rate>1.2.3", "is not a number"),
    ],
)
def test_says_what_is_expected(text, said):
    with pytest.raises(BadCondition) as caught:
        parse_condition(text)
    assert said in str(caught.value)
