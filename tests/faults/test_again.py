"""Two monitors at once, and one after the other, on the same model and into the same files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gradwatch as gw
from tests.faults.training import KINDS, OWN, Training, assert_readable, total_norms, unwatched, warned
from tests.norm_table import read_norms

STEPS = 12

by_kind = pytest.mark.parametrize("kind", KINDS)
by_own_kind = pytest.mark.parametrize("kind", OWN)


def by_steps(training: Training, first: gw.Monitor, second: gw.Monitor) -> None:
    """Both are told of every step, and the second is closed in the middle."""
    while training.steps < STEPS:
        training.backward()
        first.step()
        second.step()
        training.update()
        if training.steps == STEPS // 2:
            second.close()
    first.close()


def by_hooks(training: Training, first: gw.Monitor, second: gw.Monitor) -> None:
    """Both have hooks on the optimizer, and the second is closed in the middle."""
    training.run(STEPS // 2)
    second.close()
    training.run(STEPS)
    first.close()


def by_both(training: Training, first: gw.Monitor, second: gw.Monitor) -> None:
    """The first has hooks on the optimizer, the second is told."""
    training.run(STEPS // 2, second)
    second.close()
    training.run(STEPS)
    first.close()


MAKERS = {
    by_steps: (lambda t, sinks: gw.Monitor(t.model, sinks=sinks), lambda t, sinks: gw.Monitor(t.model, sinks=sinks)),
    by_hooks: 2 * (lambda t, sinks: gw.watch(t.model, t.optimizer, sinks=sinks),),
    by_both: (
        lambda t, sinks: gw.watch(t.model, t.optimizer, sinks=sinks),
        lambda t, sinks: gw.Monitor(t.model, sinks=sinks),
    ),
}


@by_kind
@pytest.mark.parametrize("drive", MAKERS, ids=lambda drive: drive.__name__)
def test_two_monitors_on_one_model(kind: str, drive: Callable[..., None], tmp_path: Path) -> None:
    """Each sees every step, and neither keeps the other from it."""
    training = Training()
    with warned(messages := []):
        first, second = (make(training, [KINDS[kind].sink(tmp_path / name)]) for name, make in zip("ab", MAKERS[drive]))
        drive(training, first, second)
    assert messages == []
    assert training.state() == unwatched(STEPS)
    assert_readable(kind, tmp_path / "a", range(STEPS))
    assert_readable(kind, tmp_path / "b", range(STEPS // 2))
    assert not training.optimizer._optimizer_step_pre_hooks
    assert not training.optimizer._optimizer_step_post_hooks


@by_own_kind
def test_two_monitors_write_into_one_directory(kind: str, tmp_path: Path) -> None:
    """They should not; but each record is whole, and each file too."""
    training = Training()
    with warned(messages := []):
        monitors = [gw.Monitor(training.model, sinks=[KINDS[kind].sink(tmp_path)]) for _ in range(2)]
        while training.steps < STEPS:
            training.backward()
            for monitor in monitors:
                monitor.step()
            training.update()
        for monitor in monitors:
            monitor.close()
    assert messages == []
    assert sorted(step for step, _ in KINDS[kind].read(tmp_path)) == sorted([*range(STEPS)] * 2)
    assert training.state() == unwatched(STEPS)


@by_kind
def test_two_monitors_share_a_sink(kind: str, tmp_path: Path) -> None:
    """The first to be closed closes the sink; it opens again for the other."""
    sink, training = KINDS[kind].sink(tmp_path), Training()
    with warned(messages := []), gw.Monitor(training.model, sinks=[sink]) as outer:
        with gw.Monitor(training.model, sinks=[sink]) as inner:
            training.run(4, inner)
        training.run(9, outer)
    assert messages == []
    found = list(KINDS[kind].read(tmp_path))
    assert [step for step, _ in found] == [*range(4), *range(5)]
    np.testing.assert_allclose([norm for _, norm in found], total_norms(9), rtol=1e-6)


@by_kind
def test_a_second_fit_goes_on_in_the_same_files(kind: str, tmp_path: Path) -> None:
    """Another monitor takes the sink and the state of the first one."""
    sink, training = KINDS[kind].sink(tmp_path), Training()
    with warned(messages := []):
        with gw.Monitor(training.model, sinks=[sink]) as monitor:
            training.run(5, monitor)
        second = gw.Monitor(training.model, sinks=[sink])
        second.load_state_dict(monitor.state_dict())
        training.run(STEPS, second)
        second.close()
    assert messages == []
    assert training.state() == unwatched(STEPS)
    assert_readable(kind, tmp_path, range(STEPS))


def test_each_event_file_can_be_read_alone(tmp_path: Path) -> None:
    """The names of the layers are in the second file too: the first may have been moved away."""
    sink, training = gw.sinks.TensorBoard(tmp_path), Training()
    for until in (5, STEPS):
        with gw.Monitor(training.model, sinks=[sink]) as monitor:
            training.run(until, monitor)
    first, _ = sorted(tmp_path.iterdir())
    first.unlink()
    table = read_norms(tmp_path)
    assert (table.layers, len(table.steps)) == (("0", "2"), STEPS - 5)
    np.testing.assert_allclose(np.linalg.norm(table.grad_norm, axis=1), total_norms(STEPS)[5:], rtol=1e-6)


@by_own_kind
def test_a_sink_that_was_dropped_is_taken_up_by_the_next_fit(kind: str, tmp_path: Path) -> None:
    """The disk was full in the first fit, and has space again in the second."""
    sink, training = KINDS[kind].sink(tmp_path), Training()
    with warned(messages := []):
        with gw.Monitor(training.model, sinks=[sink]) as monitor:
            training.run(3, monitor)
            for path in tmp_path.iterdir():
                path.unlink()
            training.run(6, monitor)
        with gw.Monitor(training.model, sinks=[sink]) as monitor:
            training.run(STEPS, monitor)
    assert len(messages) == 1
    found = list(KINDS[kind].read(tmp_path))
    assert [step for step, _ in found] == [*range(STEPS - 6)]
    np.testing.assert_allclose([norm for _, norm in found], total_norms(STEPS)[6:], rtol=1e-6)
    assert training.state() == unwatched(STEPS)
