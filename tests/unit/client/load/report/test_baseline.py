import json

import pytest

from latentserve_client.load.report.baseline import (
    BadBaseline,
    compare,
    differing_options,
    read_baseline,
)
from latentserve_client.load.report.data import FORMAT


def report(rate, p99_ms, spread=0.02, **options):
    def around(mean):
        return {"mean": mean, "half_width": mean * spread, "relative": spread, "windows": 10}

    run = {
        "rate_per_s": rate,
        "latency": {"p99_ms": p99_ms, "mean_ms": None},
        "rate_interval": around(rate),
        "p99_ms_interval": around(p99_ms),
    }
    return {"format": FORMAT, "options": options, "runs": [run], "shown": 0}


def verdicts(before, after):
    return {change.name: change.verdict for change in compare(before, after)}


def test_differences_are_better_worse_or_noise():
    assert verdicts(report(100, 10), report(120, 12)) == {"rate /s": "better", "p99 ms": "worse"}
    assert verdicts(report(100, 10), report(80, 8)) == {"rate /s": "worse", "p99 ms": "better"}
    assert verdicts(report(100, 10), report(103, 10.3)) == {"rate /s": "noise", "p99 ms": "noise"}


def test_without_an_interval_there_is_no_verdict():
    old, new = report(100, 10), report(150, 10)
    del old["runs"][0]["rate_interval"]
    rate = compare(old, new)[0]
    assert (rate.verdict, rate.share) == ("", 0.5)


def test_names_the_options_that_differ():
    old = report(1, 1, mix="encode", seed=None, out="a.json")
    new = report(1, 1, mix="decode", seed=None, out="b.json")
    assert differing_options(old, new) == ["mix: encode -> decode"]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"format": "x", "runs": [1]})])
def test_refuses_a_file_that_is_no_report(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(BadBaseline, match=r"old\.json"):
        read_baseline(path)
    path.write_text(json.dumps(report(1, 1)))
    assert read_baseline(path)["format"] == FORMAT
