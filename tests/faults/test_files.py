"""The place that is written to fails: training goes on, one warning is given, and what was written stays readable."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import gradwatch as gw
from tests.faults.processes import posix, result
from tests.faults.training import (
    KINDS,
    OWN,
    Outcome,
    Training,
    assert_readable,
    dropped,
    unwatched,
    warned,
)

pytestmark = posix

STEPS = 60
SPACE = 12 << 10
"""Bytes, full after some 25 steps."""

by_kind = pytest.mark.parametrize("kind", KINDS)
by_own_kind = pytest.mark.parametrize("kind", OWN)

REFUSED = "mounting is refused here"


def small_disk(directory: Path) -> None:
    """Mount a disk of SPACE bytes, in a namespace of this process alone; it goes when the process ends."""
    maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    namespaces = 0x00020000 | (0x10000000 if os.getuid() else 0)  # of mounts; of users, where this one is not root
    if ctypes.CDLL(None, use_errno=True).unshare(namespaces):
        raise PermissionError(REFUSED)
    for name, content in maps.items() if os.getuid() else ():
        Path("/proc/self", name).write_text(content)
    for command in ("mount --make-rprivate /", f"mount -t tmpfs -o size={SPACE} small {directory}"):
        if subprocess.run(command.split(), capture_output=True, check=False).returncode:
            raise PermissionError(REFUSED)


def small_files(directory: Path) -> None:
    """No file may grow beyond SPACE bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPACE, SPACE))


LIMITS = {"a full disk": small_disk, "a limit on the size of files": small_files}


def train_into(kind: str, directory: Path, limit: str) -> Outcome:
    """Train while the disk fills up, and read back at once: the small disk is gone with this process."""
    try:
        LIMITS[limit](directory)
    except PermissionError as error:
        return Outcome(b"", [str(error)], 0)
    threading.excepthook = lambda args: None  # the thread of a SummaryWriter dies with a traceback
    sink, memory = KINDS[kind].sink(directory), gw.sinks.Memory()
    with warned(messages := []):
        training = Training()
        with gw.Monitor(training.model, sinks=[sink, memory]) as monitor:
            training.run(STEPS, monitor)
    written = [step for step, _ in KINDS[kind].read(directory)]
    assert_readable(kind, directory, range(len(written)))
    return Outcome(training.state(), messages, len(memory.reports), len(written))


@by_kind
@pytest.mark.parametrize("limit", LIMITS)
def test_no_space_left(kind: str, limit: str, tmp_path: Path) -> None:
    outcome = result(train_into, kind, tmp_path, limit)
    if outcome.warnings == [REFUSED]:
        pytest.skip(REFUSED)
    (message,) = outcome.warnings
    assert message.startswith(f"GradwatchWarning: {dropped(kind)}: OSError: [Errno ")
    assert message.endswith(("No space left on device", "File too large"))
    assert 5 < outcome.more < STEPS
    assert (outcome.recorded, outcome.state) == (STEPS, unwatched(STEPS))


def torn_line(directory: Path) -> bytes:
    """Have a full disk cut a line in two, and give what is in the file after it."""
    small_files(directory)
    path = directory / "gradients.jsonl"
    sink = gw.sinks.JSONL(path)
    report = gw.Report("x" * 100, gw.Severity.INFO)
    for _ in range(SPACE):
        try:
            sink.write(report)
        except OSError:
            return path.read_bytes()
    raise AssertionError("the file was never full")


def test_a_line_that_fits_in_part_is_taken_out(tmp_path: Path) -> None:
    content = result(torn_line, tmp_path)
    assert content.endswith(b"}\n")
    assert 0 < SPACE - len(content) < len(content.splitlines()[0])


@by_own_kind
@pytest.mark.parametrize("before", [0, 7], ids=["before the first step", "while running"])
def test_the_directory_is_removed(kind: str, before: int, tmp_path: Path) -> None:
    training, memory = Training(), gw.sinks.Memory()
    directory = tmp_path / "run"
    monitor = gw.Monitor(training.model, sinks=[KINDS[kind].sink(directory), memory])
    training.run(before, monitor)
    shutil.rmtree(directory)
    with warned(messages := []), monitor:
        training.run(STEPS, monitor)
    (message,) = messages
    reason = "the file was removed" if before else "No such file or directory"
    words = f"GradwatchWarning: {dropped(kind)}: FileNotFoundError: [Errno 2] {reason}: '{directory}"
    assert message.startswith(words)
    assert (len(memory.reports), training.state()) == (STEPS, unwatched(STEPS))


def without_permission(kind: str, directory: Path, before: int) -> Outcome:
    """Train while the directory may no longer be written to, as a user who is bound by that."""
    if os.getuid() == 0:
        os.chown(directory, 65534, 65534)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    memory = gw.sinks.Memory()
    with warned(messages := []):
        sink, training = KINDS[kind].sink(directory), Training()
        training.run(before, first := gw.Monitor(training.model, sinks=[sink]))
        first.close()
        for path in directory.iterdir():
            path.chmod(0o400)
        directory.chmod(0o500)
        with gw.Monitor(training.model, sinks=[sink, memory]) as monitor:
            training.run(STEPS, monitor)
        directory.chmod(0o700)
    assert_readable(kind, directory, range(before))
    return Outcome(training.state(), messages, len(memory.reports), os.getuid())


@by_own_kind
@pytest.mark.parametrize("before", [0, 7], ids=["before the first step", "before a second fit"])
def test_permission_is_lost(kind: str, before: int) -> None:
    with TemporaryDirectory() as directory:  # tmp_path is closed to other users
        os.chmod(directory, 0o755)
        outcome = result(without_permission, kind, Path(directory), before)
    (message,) = outcome.warnings
    assert message.startswith(f"GradwatchWarning: {dropped(kind)}: PermissionError: [Errno 13]")
    assert outcome.more != 0
    assert (outcome.recorded, outcome.state) == (STEPS - before, unwatched(STEPS))


@by_own_kind
def test_the_directory_of_the_process_may_change(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    training = Training()
    monitor = gw.Monitor(training.model, sinks=[KINDS[kind].sink(Path("runs"))])
    monkeypatch.chdir(elsewhere)
    training.run(5, monitor)
    monitor.close()
    assert_readable(kind, tmp_path / "runs", range(5))
    assert list(elsewhere.iterdir()) == []


@by_own_kind
def test_an_interrupt_within_a_write_leaves_whole_records(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may take a record in parts, and a signal may come between them."""
    training = Training()
    monitor = gw.Monitor(training.model, sinks=[KINDS[kind].sink(tmp_path)])
    training.run(3, monitor)
    write, calls = os.write, []

    def a_part(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", a_part)
    with pytest.raises(KeyboardInterrupt):
        training.run(4, monitor)
    monkeypatch.undo()
    assert calls == [calls[0], calls[0] - calls[0] // 2]
    assert_readable(kind, tmp_path, range(3))
    training.update()
    with monitor:
        training.run(6, monitor)
    assert_readable(kind, tmp_path, [0, 1, 2, 4, 5])
    assert training.state() == unwatched(6)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (b'{"verdict": "healthy", "sev', b""),
        (b'{"ver', b""),
        (b"{", b""),
        (b'{"verdict": "healthy"}', b""),
        (b"the user's own words", b"the user's own words\n"),
    ],
    ids=["a torn line", "its beginning", "its first letter", "a line without its end", "not from here"],
)
def test_what_a_killed_run_left_of_a_line_is_cut_off(left: bytes, expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gradients.jsonl"
    training = Training()
    with gw.Monitor(training.model, sinks=[gw.sinks.JSONL(path)]) as monitor:
        training.run(3, monitor)
    whole = path.read_bytes()
    path.write_bytes(whole + left)
    with gw.Monitor(training.model, sinks=[gw.sinks.JSONL(path)]) as monitor:
        training.run(5, monitor)
    content = path.read_bytes()
    assert content.startswith(whole + expected)
    lines = content[len(whole + expected) :].decode().splitlines()
    assert [json.loads(line)["stats"]["step"] for line in lines] == [0, 1]  # of a monitor that begins anew
