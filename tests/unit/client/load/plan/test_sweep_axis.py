import pytest

from latentserve_client.load.plan.sweep_axis import BadSweep, parse_sweep


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("concurrency=1,8,2", (1, 2, 8)),
        ("rate=100..1600", (100, 200, 400, 800, 1600)),
        ("rate=100..1000", (100, 200, 400, 800, 1000)),
        ("concurrency=1..4:1", (1, 2, 3, 4)),
        ("rate=0.5", (0.5,)),
    ],
)
def test_reads_loads(text, points):
    axis = parse_sweep(text)
    assert axis.points == points
    assert axis.name == text.partition("=")[0]


@pytest.mark.parametrize(
    "text",
    ["", "rate", "threads=1", "rate=", "rate=0", "rate=8..4", "concurrency=1.5", "rate=a..2"],
)
def test_says_what_is_expected(text):
    with pytest.raises(BadSweep):
        parse_sweep(text)
