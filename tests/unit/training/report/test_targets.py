import math

import pytest

from latentserve_training.errors import ConfigError
from latentserve_training.report.targets import Anchor, Target, matches, read_targets

TARGET = """
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


def target(**changes):
    return Target(**{"name": "f", "where": {}, "metric": "test_mse", "anchors": ()} | changes)


def test_targets_and_their_anchors_are_read(tmp_path):
    path = tmp_path / "anchors.toml"
    assert read_targets(path) == ()
    path.write_text(TARGET, encoding="utf-8")
    (read,) = read_targets(path)
    assert read.anchors == (Anchor("1", "by hand", "derived"),)
    assert read.reach == "≤ 0.5"
    assert [read.is_reached_by(value) for value in (0.5, 0.6, math.nan)] == [True, False, False]
    assert matches(record(latent_dim=4), read.where)
    assert not matches(record(latent_dim=5), read.where)
    assert not matches(record(), read.where)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("derived", "certain"),
        ("at_most = 0.5", ""),
        ("at_most = 0.5", "at_most = 0.5\nat_least = 0.1"),
        ("at_most", "below"),
        ("[[figure]]", "[["),
        ("at_most = 0.5", 'at_most = 0.5\ncompare = "twice"'),
    ],
)
def test_a_broken_list_is_refused(before, after, tmp_path):
    path = tmp_path / "anchors.toml"
    path.write_text(TARGET.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match="is not a list of targets"):
        read_targets(path)


def test_comparisons():
    own, alone = record(value=3.0, baseline=4.0), record(value=3.0)
    for compare, expected in (("value", 3.0), ("times_baseline", 0.75), ("below_baseline", 1.0)):
        compared = target(compare=compare, at_most=1.0)
        assert compared.value_of(own) == expected
        assert math.isnan(compared.value_of(alone)) == (compare != "value")
        assert math.isnan(target(compare=compare, metric="other", at_most=1.0).value_of(own))
