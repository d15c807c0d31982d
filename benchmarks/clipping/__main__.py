"""What each clip policy does for a run that something goes wrong in.

    python -m benchmarks.clipping --docs

About ten minutes on one core. docs/clipping.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.clipping import results
from benchmarks.clipping.tasks import TASKS
from benchmarks.clipping.troubles import TROUBLES
from benchmarks.timing import machine, one_thread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each run")
    parser.add_argument("--seeds", type=int, default=5, help="of each cell")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/clipping.md")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    one_thread()
    found = results.measure(arguments.steps, arguments.seeds)
    console = Console(width=160)
    for name, task in TASKS.items():
        table = Table("", *TROUBLES, title=task.title)
        for row in results.rows(found["runs"][name]):
            table.add_row(*row)
        console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.docs:
        results.write_page(results.markdown(found, machine()))


if __name__ == "__main__":
    main()
