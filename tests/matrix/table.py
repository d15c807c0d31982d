"""The matrix: each case with the answer that gradwatch gives, right or unknown, never silently wrong.

A case is a test with its row of the table written above it; ``python -m tests.matrix.table`` makes docs/correctness.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"

FILES = ("precision", "loops", "user_clips", "tensors", "compiled", "distributed", "lightning_strategies")


class Cell(NamedTuple):
    case: str
    answer: str
    test: str


class Group:
    """The cases of one file, in the order in which they are written.

    >>> cell = Group("Precision")
    >>> @cell("float16 parameters", within=1e-6)
    ... def test_float16_parameters(): ...
    >>> cell.cells
    [Cell(case='float16 parameters', answer='right, within 1e-06', test='test_float16_parameters')]
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.cells: list[Cell] = []

    def __call__(self, case: str, *, within: float | None = None, unknown: str = "") -> Callable[[Test], Test]:
        """Note a case.

        Args:
            case: what is done, in the words of the table.
            within: largest relative error that the test allows; None where what is asserted is exact.
            unknown: why gradwatch does not know here, and how it says so; right everywhere else.
        """
        answer = f"unknown: {unknown}" if unknown else "right" if within is None else f"right, within {within:g}"

        def noted(test: Test) -> Test:
            self.cells.append(Cell(case, answer, test.__name__))
            return test

        return noted


def group(name: str) -> Group:
    """The cases of one of FILES."""
    found: Group = importlib.import_module(f"tests.matrix.test_{name}").cell
    return found


def page() -> str:
    """docs/correctness.md."""
    text = (Path(__file__).parent / "correctness.md.in").read_text(encoding="utf-8")
    answers = [cell.answer for name in FILES for cell in group(name).cells]
    unknown = sum(answer.startswith("unknown") for answer in answers)
    text += f"\n{len(answers)} cases: {len(answers) - unknown} right, {unknown} not known or in part, and why.\n"
    for name in FILES:
        title, cells = group(name).title, group(name).cells
        rows = [f"| {cell.case} | {cell.answer} | `{cell.test}` |" for cell in cells]
        text += "\n".join([f"\n## {title}\n", "| case | gradwatch is | test |", "| --- | --- | --- |", *rows])
        text += "\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
