"""The table says what the tests say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.matrix import table

HERE = Path(__file__).parent


def names_of_tests(file: Path) -> list[str]:
    """The names of the test functions, those of classes too."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [node.name for node in found if node.name.startswith("test_")]


def test_every_file_of_the_matrix_is_in_the_table() -> None:
    files = {file.stem.removeprefix("test_") for file in HERE.glob("test_*.py")} - {"table"}
    assert files == set(table.FILES)


@pytest.mark.parametrize("name", table.FILES)
def test_every_test_has_a_row(name: str) -> None:
    tests = names_of_tests(HERE / f"test_{name}.py")
    rows = [cell.test for cell in table.group(name).cells]
    assert tests
    assert set(rows) == set(tests)


@pytest.mark.parametrize("name", table.FILES)
def test_every_row_is_another_case(name: str) -> None:
    cases = [cell.case for cell in table.group(name).cells]
    assert len(set(cases)) == len(cases)


def test_the_page_is_made_from_the_tests() -> None:
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run python -m tests.matrix.table"


def test_a_row_says_how_right_it_is_or_why_not() -> None:
    group = table.Group("Title")
    group("a", within=1e-3)(test_every_row_is_another_case)
    group("b")(test_every_row_is_another_case)
    group("c", unknown="meta tensors hold no numbers; the layer is left out")(test_every_row_is_another_case)
    assert [cell.answer for cell in group.cells] == [
        "right, within 0.001",
        "right",
        "unknown: meta tensors hold no numbers; the layer is left out",
    ]
