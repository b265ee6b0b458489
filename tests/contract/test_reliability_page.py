"""docs/reliability.md names a test for every fault, and all tests of the fault suite."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!(attack or )?fault \|)", line)]
NAMED = re.findall(r"`([\w/]+\.py)::(test_\w+)`", "\n".join(ROWS))


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_a_row_has_four_cells_and_names_its_test(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 4
    assert all(cells)
    assert re.fullmatch(r"`[\w/]+\.py::test_\w+`", cells[3])


def test_every_named_test_exists() -> None:
    assert len(NAMED) == len(ROWS) > 20
    assert [name for name in NAMED if name[1] not in names_in(TESTS / name[0])] == []


def test_every_test_of_the_fault_suite_is_named() -> None:
    present = {
        (f"faults/{path.name}", name)
        for path in (TESTS / "faults").glob("test_*.py")
        for name in names_in(path)
    }
    assert len(present) > 10
    assert present - set(NAMED) == set()
