import math

import pytest

from latentserve_training.anchors import Anchor, Figure, is_of, read_anchors
from latentserve_training.errors import ConfigError

FIGURE = """
[[figure]]
name = "error"
where = { kind = "vae", "model.latent_dim" = 4 }
metric = "test_mse"
at_most = 0.5
[[figure.anchor]]
text = "1"
source = "by hand"
how_sure = "derived"
"""


def record(name="a", value=1.0, baseline=None, **model):
    given = None if baseline is None else {"name": "b", "value": baseline}
    return {
        "config": {"name": name, "kind": "vae", "model": model},
        "metrics": {"test_mse": {"value": value, "baseline": given}},
    }


def figure(**changes):
    return Figure(**{"name": "f", "where": {}, "metric": "test_mse", "anchors": ()} | changes)


def test_figures_and_their_anchors_are_read(tmp_path):
    path = tmp_path / "anchors.toml"
    assert read_anchors(path) == ()
    path.write_text(FIGURE, encoding="utf-8")
    (read,) = read_anchors(path)
    assert read.anchors == (Anchor("1", "by hand", "derived"),)
    assert read.reach == "≤ 0.5"
    assert [read.is_reached_by(value) for value in (0.5, 0.6, math.nan)] == [True, False, False]
    assert is_of(record(latent_dim=4), read.where)
    assert not is_of(record(latent_dim=5), read.where)
    assert not is_of(record(), read.where)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("derived", "certain"),
        ("at_most = 0.5", ""),
        ("at_most = 0.5", "at_most = 0.5\nat_least = 0.1"),
        ("at_most", "below"),
        ("[[figure]]", "[["),
        ("at_most = 0.5", 'at_most = 0.5\ncompare = "twice"'),
        ("at_most = 0.5", 'at_most = 0.5\ncompare = "times"'),
    ],
)
def test_a_broken_list_is_refused(before, after, tmp_path):
    path = tmp_path / "anchors.toml"
    path.write_text(FIGURE.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match="is no list of figures to reach"):
        read_anchors(path)


def test_comparisons():
    own = record(value=3.0, baseline=4.0)
    others = [own, record("twin", 1.0), record("twin", 2.0)]
    at_most = {"at_most": 1.0}
    assert figure(**at_most).value_of(own, others) == 3.0
    assert figure(compare="times_baseline", **at_most).value_of(own, others) == 0.75
    assert figure(compare="below_baseline", **at_most).value_of(own, others) == 1.0
    times = figure(compare="times", against={"name": "twin"}, **at_most)
    assert times.value_of(own, others) == 2.0
    assert math.isnan(times.value_of(own, [own]))
    assert math.isnan(figure(compare="times_baseline", **at_most).value_of(record(), others))
    assert math.isnan(figure(**at_most | {"metric": "other"}).value_of(own, others))
