"""The command `gradwatch`: each subcommand is a parser and a function from its arguments to an exit code."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import gradwatch
from gradwatch import demo
from gradwatch.sinks.paths import writable_directory

MAX_STEPS = 1_000_000
"""Far more than any story takes; the rest is a slip of the finger."""


class CommandError(Exception):
    """What the user can mend, in a sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after ``gradwatch``, those of this process by default.

    Returns:
        The exit code: 0 when the command did its work, 1 when it could not, 3 when ``report --fail-on`` found what it
        was asked for. Wrong arguments exit with 2.
    """
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except CommandError as error:
        print(f"gradwatch: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has read enough, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("gradwatch: stopped", file=sys.stderr)
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    found = argparse.ArgumentParser(prog="gradwatch", description="Watch the gradients of PyTorch training.")
    found.add_argument("--version", action="version", version=f"gradwatch {gradwatch.__version__}")
    commands = found.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands.add_parser("demo", help="train small networks, well and badly, and see what gradwatch says"))
    _add_report(commands.add_parser("report", help="what TensorBoard's event files say of a run, without TensorBoard"))
    return found


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("story", nargs="?", choices=demo.NAMES, default=demo.NAMES[0], help="default: %(default)s")
    command.add_argument(
        "--logdir",
        type=Path,
        default=Path("runs"),
        help="where TensorBoard's files go, one directory per story and run; those of an earlier demo are replaced "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--steps", type=_whole(1, MAX_STEPS), default=300, help="batches to train on (default: %(default)s)"
    )
    command.add_argument("--seed", type=_whole(0), default=0, help="default: %(default)s")
    command.set_defaults(command=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from gradwatch.demo.screen import summary
        from gradwatch.demo.stage import Stage
        from gradwatch.demo.stories import STORIES
    except ImportError as error:
        raise CommandError(f'the demo needs: pip install "gradwatch[demo]" ({error})') from error
    try:
        logdir = writable_directory("--logdir", arguments.logdir / arguments.story)
    except ValueError as error:
        raise CommandError(str(error)) from error
    _print_any_character()
    stage = Stage(logdir, arguments.steps, arguments.seed)
    runs = STORIES[arguments.story](stage)
    stage.console.print(summary(runs))
    stage.console.print("\nSee every step of it:")
    stage.console.print(f"tensorboard --logdir {shlex.quote(str(arguments.logdir))}", markup=False, soft_wrap=True)
    return 0


def _add_report(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Exit code: 0; 1 where there is nothing to report on; 3 with --fail-on, where that was found in LOGDIR."
    )
    command.add_argument("logdir", type=Path, metavar="LOGDIR", help="as given to tensorboard --logdir, or one run")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.add_argument("--html", type=Path, metavar="FILE", help="write the Gradients tab into one file as well")
    command.add_argument(
        "--compare", type=Path, metavar="OTHER", help="a directory of runs from before, to compare with"
    )
    command.add_argument(
        "--fail-on",
        choices=["warning", "error"],
        help="exit with 3 where a verdict or an alert, over by the end or not, is that bad or worse",
    )
    command.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    try:
        from gradwatch.report.command import ReportError, report
    except ImportError as error:
        raise CommandError(f'the report needs: pip install "gradwatch[tensorboard]" ({error})') from error
    _print_any_character()
    try:
        return report(arguments.logdir, arguments.compare, arguments.json, arguments.html, arguments.fail_on)
    except ReportError as error:
        raise CommandError(str(error)) from error


def _print_any_character() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars are in few legacy encodings


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``, for argparse."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {text!r}")
        return number

    return parse
