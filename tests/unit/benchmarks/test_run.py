"""benchmarks/run.py, at tiny sizes: whoever has a quiet machine must not find it broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "benchmarks" / "run.py"


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report that was measured."""
    if shutil.which("h2load") is None:
        pytest.skip("H2LOAD IS NOT THERE (Debian: nghttp2-client): the benchmark is not tried out")
    folder = tmp_path_factory.mktemp("bench")
    soaks = folder / "soaks"
    soaks.mkdir()
    lines = [f"{second},{second * 100},{120 + second / 1e3},9,30" for second in range(12)]
    header = "seconds,calls,resident_mb,threads,files"
    (soaks / "soak-cq.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    done = run("--tiny", "--out", str(folder), "--soaks", str(soaks))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text("utf-8"))
    return found


def test_every_load_is_put_on_every_server_that_it_is_for(result: dict[str, Any]) -> None:
    assert result["missing"] == ["peers: not asked for (--peers)"]
    assert {group for cell in result["cells"] for group in cell["groups"]} == set(result["groups"])
    for cell in result["cells"]:
        assert set(cell["who"]) >= {"empty call", "cq"}, cell
        for results in cell["who"].values():
            assert all(each > 0 for each in results["calls_per_s"] + results["p50_us"])
        assert cell["who"]["cq"]["batch_rows"][0] >= 1
    assert all(each["cpu_us"][0] > 0 for each in result["bare"])


def test_a_server_of_several_processes_is_looked_at_whole(result: dict[str, Any]) -> None:
    assert result["servers"]["cq"]["processes"] == 1
    assert result["servers"]["cq × 2"]["processes"] == 3
    assert all(each["start_s"] > 0 and each["used_mb"] > 5 for each in result["servers"].values())


def test_growth_is_measured(result: dict[str, Any]) -> None:
    grown = result["growth"]
    assert [each["models"] for each in grown["models"]] == [1, 3]
    assert [each["clients"] for each in grown["clients"]] == [1, 4]
    assert [each["name"] for each in grown["hours"]] == ["cq"]


def test_the_report_has_every_plot_with_a_sentence(out: Path, result: dict[str, Any]) -> None:
    report = (out / "RESULTS.md").read_text("utf-8")
    for name in ("throughput-latency", "one-call", "workers"):
        assert f"](plots/{name}.png)" in report
    for name in ("rows", "models", "clients", "hours"):
        assert f"](plots/growth-{name}.png)" in report
    for line in report.splitlines():
        if line.startswith("!["):
            sentence, _, plot = line[2:].removesuffix(")").partition("](")
            assert len(sentence) > 40, line
            assert f"\n{sentence}\n" in report
            assert (out / plot).read_bytes().startswith(b"\x89PNG")
    assert "nan" not in report
    assert f"{result['machine']['cores']} cores" in report
    assert result["date"] in report
    assert "+0.100 MB per 10,000 calls" in report


def test_report_and_plots_are_made_again_without_measuring(out: Path, tmp_path: Path) -> None:
    results = str(out / "results.json")
    assert run("--from", results, "--out", str(tmp_path)).returncode == 0
    for path in sorted(path for path in out.rglob("*") if path.suffix in (".md", ".png", ".json")):
        assert (tmp_path / path.relative_to(out)).read_bytes() == path.read_bytes(), path.name


def test_a_report_that_is_out_of_date_is_found(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    checked = ("--from", str(copy / "results.json"), "--out", str(copy), "--check")
    assert run(*checked).returncode == 0
    report = copy / "RESULTS.md"
    report.write_text(report.read_text("utf-8").replace("cq", "CQ", 1), encoding="utf-8")
    (copy / "plots" / "workers.png").unlink()
    done = run(*checked)
    assert done.returncode == 1
    assert "RESULTS.md is not what the results give" in done.stderr
    assert "workers.png is missing" in done.stderr


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    if shutil.which("h2load") is None:
        pytest.skip("H2LOAD IS NOT THERE")
    done = run("--tiny", "--exports", str(tmp_path), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "has no model mnist-ae" in done.stderr
