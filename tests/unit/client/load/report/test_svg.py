import xml.etree.ElementTree as ElementTree

import pytest

from latentserve_client.load.report.svg import Axis, Bar, Line, chart, linear_ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text):
    return ElementTree.fromstring(text)  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 6, [0, 1, 2, 3, 4, 5, 6]), (0, 47, [0, 10, 20, 30, 40, 50]), (0, 0.3, None)],
)
def test_ticks_are_round_and_enclose(low, high, ticks):
    found = linear_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high - 1e-9
    assert 4 <= len(found) <= 9
    if ticks:
        assert found == ticks


def test_logarithmic_ticks():
    assert Axis("ms", 0.5, 30, logarithmic=True).ticks == [0.5, 1, 2, 5, 10, 20]
    wide = Axis("ms", 0.01, 1000, logarithmic=True).ticks
    assert wide == pytest.approx([0.01, 0.1, 1, 10, 100, 1000])


def test_an_axis_places_values():
    assert Axis("x", 0, 10).share(5) == 0.5
    assert Axis("x", 1, 100, logarithmic=True).share(10) == pytest.approx(0.5)
    assert Axis("x", 3, 3).share(3) == pytest.approx(0, abs=1)  # an empty range is widened


def test_a_chart_is_well_formed_and_holds_everything():
    lines = [Line("p99", [(0, 1), (5, 9)], "c1", ["a<b", "16"], dots=True), Line("none", [], "c2")]
    svg = parsed(
        chart(
            "A & B", Axis("x", 0, 10), Axis("y", 0, 10),
            lines=lines, bars=[Bar(1, 2, 5)], marks=[(3, "p50")], level=(7, "objective"),
        )
    )  # fmt: skip
    texts = {element.text for element in svg.iter("text")}
    assert {"a<b", "16", "p50", "objective", "p99", "x", "y"} <= texts
    assert len(list(svg.iter("circle"))) == 2
    assert len([rect for rect in svg.iter("rect") if rect.get("class") == "bar"]) == 1
    assert svg.find("figcaption").text == "A & B"


def test_points_are_clamped_to_the_chart():
    svg = parsed(
        chart("t", Axis("x", 0, 10), Axis("y", 0, 10), lines=[Line("l", [(50, 99)], "c1")])
    )
    (points,) = [line.get("points") for line in svg.iter("polyline")]
    left, top = map(float, points.split(","))
    assert 0 <= left <= 720
    assert 0 <= top <= 300
