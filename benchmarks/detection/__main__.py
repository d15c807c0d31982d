"""The benchmark of training faults: what each program is, what detectors are given of it, and how they do.

    python -m benchmarks.detection label                   # an hour: every program over five seeds, and its remedies
    python -m benchmarks.detection record --recordings DIR  # minutes: one run of each program
    python -m benchmarks.detection score --recordings DIR   # seconds: every detector on every recording
    python -m benchmarks.detection stuck                   # minutes: the layers that each fault hits, by training them
    python -m benchmarks.detection diagnose                # minutes: what a user is told, and what following it does

Each may be interrupted and goes on where it was. docs/detection.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.detection import board, labels, split, summary
from benchmarks.detection.diagnosing import diagnose
from benchmarks.detection.interventions import INTERVENTIONS, InterventionFile, intervene, section, summarise
from benchmarks.detection.labels import DROPPED, FAULTY, RECORDED_SEED, LabelFile, Runs
from benchmarks.detection.recorder import record
from benchmarks.detection.recording import Recording
from benchmarks.detection.stuck import STUCK, StuckFile, find
from benchmarks.detection.task import Program
from benchmarks.timing import machine, one_thread

DOCS = Path(__file__).parents[2] / "docs" / "detection.md"
SCORES, LABELS, CAUSES = "detection", "labels", "causes"
"""Names of the marks in the docs between which a section is written."""


def label(programs: Sequence[Program], path: Path, console: Console) -> None:
    """Label every program that has no label yet; the file is written after each."""
    file = LabelFile.read(path)
    missing = file.missing(programs)
    file.made_by = made_by("python -m benchmarks.detection label") if missing else file.made_by
    with _progress(console) as progress:
        task = progress.add_task("label", total=sum(map(labels.number_of_runs, missing)))
        runs = Runs(ran=lambda: progress.advance(task))
        done = 0
        for program in missing:
            progress.update(task, description=program.name)
            found = file.labels[program.name] = labels.label(program, runs.gains(program))
            done += labels.number_of_runs(program)
            progress.update(task, completed=done)
            file.write()
            console.print(f"{program.name:40} {found.label:8} q = {found.q:5.2f}  {found.reason or found.outcome}")


def find_stuck(programs: Iterable[Program], file: LabelFile, path: Path, console: Console) -> None:
    """Find the stuck layers of every faulty program that has none yet; the file is written after each."""
    stuck = StuckFile.read(path)
    missing = stuck.missing(p for p in programs if file.labels[p.name].label == FAULTY)
    stuck.made_by = made_by("python -m benchmarks.detection stuck") if missing else stuck.made_by
    with _progress(console) as progress:
        for program in progress.track(missing, description="stuck layers"):
            stuck.found[program.name] = find(program, file.labels[program.name])
            stuck.write()


def diagnose_all(programs: Iterable[Program], file: LabelFile, path: Path, console: Console) -> None:
    """Watch every program live, and apply the first remedy; the file is written after each."""
    found = InterventionFile.read(path)
    found.made_by = made_by("python -m benchmarks.detection diagnose")
    with _progress(console) as progress:
        for program in progress.track(list(programs), description="diagnose"):
            label, told = file.labels[program.name], diagnose(program, RECORDED_SEED)
            made = found.found[program.name] = intervene(program, label, told)
            found.write()
            if not program.is_healthy or told.diagnoses:
                cause = told.diagnoses[0].cause if told.diagnoses else ""
                marks = f"{'names' if made.names(label) else '-':6}{'rescues' if made.rescues else '-':8}"
                console.print(f"{program.name:40} {marks} {cause}")


def record_all(programs: Iterable[Program], directory: Path, console: Console) -> None:
    """Record every program that has no recording yet."""
    missing = [program for program in programs if not recording_of(program, directory).exists()]
    with _progress(console) as progress:
        for program in progress.track(missing, description="record"):
            recording, _ = record(program.build(RECORDED_SEED))
            recording.save(recording_of(program, directory))


def score(programs: Sequence[Program], file: LabelFile, directory: Path, console: Console) -> list[board.Row]:
    """What every detector makes of the recordings."""
    from benchmarks.detection import detectors

    found = board.Board(detectors.ALL)
    with _progress(console) as progress:
        for program in progress.track(programs, description="score"):
            is_faulty = file.labels[program.name].label == FAULTY
            found.add(program, is_faulty, Recording.load(recording_of(program, directory)))
    return list(found.rows())


def recording_of(program: Program, directory: Path) -> Path:
    """The file of its recording; another one when its settings change."""
    return directory / f"{program.name.replace('/', '-')}-{labels.fingerprint(program)}.npz"


def made_by(command: str) -> dict[str, str]:
    """How a figure came about."""
    versions = {package: version(package) for package in ("torch", "numpy", "scikit-learn")}
    return {"command": command, "machine": machine(), "python": platform.python_version(), **versions}


def kept(programs: Iterable[Program], file: LabelFile) -> Iterator[Program]:
    """Those that are labelled faulty or healthy."""
    for program in programs:
        found = file.labels.get(program.name)
        if found is not None and found.label != DROPPED:
            yield program


def write_docs(text: str, path: Path = DOCS, marks: str = SCORES) -> None:
    """Put ``text`` between the marks of this name."""
    start, end = f"<!-- {marks} -->", f"<!-- /{marks} -->"
    before, rest = path.read_text(encoding="utf-8").split(start)
    _, after = rest.split(end)
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    one_thread()
    warnings.filterwarnings("ignore")
    console = Console()
    from benchmarks.detection.programs import ALL

    programs = [program for program in ALL if fnmatchcase(program.name, given.programs)]
    halves = split.update(ALL)
    if given.what == "label":
        label(programs, given.labels, console)
        return
    file = LabelFile.read(given.labels)
    programs = list(kept(programs, file))
    if given.what == "stuck":
        find_stuck(programs, file, STUCK, console)
        return
    if given.what == "diagnose":
        diagnose_all((p for p in programs if halves[p.name] in given.halves), file, INTERVENTIONS, console)
        made, stuck = InterventionFile.read(), StuckFile.read().found
        for half in given.halves:
            of_half = [p for p in programs if halves[p.name] == half]
            console.print(half, summarise(of_half, file.labels, made.found, stuck))
        if given.docs:
            write_docs(section(ALL, halves, file.labels, made, stuck), DOCS, CAUSES)
        return
    if given.what == "record":
        record_all(programs, given.recordings, console)
        return
    wanted = split.HALVES if given.docs else (given.half,)
    rows = {
        half: score([program for program in programs if halves[program.name] == half], file, given.recordings, console)
        for half in wanted
    }
    wide = Console(width=max(console.width, 180))
    for half, found in rows.items():
        for table in board.tables(found, title=f"{half} half"):
            wide.print(table)
    if given.json:
        given.json.write_text(json.dumps({half: board.as_json(found) for half, found in rows.items()}, indent=1) + "\n")
    if given.docs:
        sections = [f"### The {half} half\n\n{board.markdown(found)}" for half, found in rows.items()]
        made = f"{machine()}. Made by `python -m benchmarks.detection score`."
        write_docs("\n\n".join([*sections, made]), DOCS, SCORES)
        write_docs(summary.labels_section(ALL, file), DOCS, LABELS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True)
    for name, about in (
        ("label", "find out which programs are faulty, by training them"),
        ("record", "train each program once, and write down what detectors need"),
        ("score", "have every detector judge every recording"),
        ("stuck", "find out which layers each fault hits, by training them one at a time"),
        ("diagnose", "watch every program live, and follow what a user is told"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("--programs", default="*", help="pattern of the names, as 'sigmoid/*'; all by default")
        command.add_argument("--labels", type=Path, default=labels.LABELS, help="the file of labels")
        if name in ("record", "score"):
            command.add_argument("--recordings", type=Path, required=True, help="directory of the recordings")
        if name == "diagnose":
            command.add_argument("--halves", nargs="+", choices=split.HALVES, default=split.HALVES)
            command.add_argument("--docs", action="store_true", help="put both halves into the docs")
        if name == "score":
            command.add_argument("--half", choices=split.HALVES, default=split.DEV, help="which programs")
            command.add_argument("--json", type=Path, help="write the figures to this file")
            command.add_argument("--docs", action="store_true", help="put both halves and the labels into the docs")
    return parser


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


if __name__ == "__main__":
    main()
