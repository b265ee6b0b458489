"""Tests named in the table of promises and in docs/ exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "SECURITY.md"])


def promises() -> dict[str, list[str]]:
    """Parse the table in test_promises.py without importing it, which would need a server."""
    tree = ast.parse((TESTS / "integration" / "test_promises.py").read_text("utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PROMISES"
    )
    assert table is not None
    found: dict[str, list[str]] = {
        name: list(tests) for name, tests in ast.literal_eval(table).items()
    }
    return found


def functions(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


def test_there_are_seven_promises_with_tests_over_real_connections() -> None:
    table = promises()
    assert len(table) == 7
    for name, tests in table.items():
        assert any(test.startswith("integration/") for test in tests), name


@pytest.mark.parametrize("promise", promises())
def test_the_tests_of_a_promise_exist(promise: str) -> None:
    for test in promises()[promise]:
        path, _, name = test.partition("::")
        assert (TESTS / path).is_file(), test
        assert name in functions(TESTS / path), test


def test_the_architecture_page_has_every_promise() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = set(re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE))
    assert set(promises()) <= rows


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    for path in re.findall(r"`(tests/[\w/.-]+\.py)`", page.read_text("utf-8")):
        assert (ROOT / path).is_file(), path
