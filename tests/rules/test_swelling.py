from __future__ import annotations

import numpy as np
import pytest

from gradwatch.rules.swelling import LARGE, RISE, Swelling
from tests.histories import INF, LOOK, NAN, history_of, slow, stats

NAMES = [f"fc{i}" for i in range(4)]
STEP = dict.fromkeys(NAMES, 1.0)


def looked(*sizes: list[float], updates: tuple[float, ...] = (), start: int = 0) -> Swelling:
    swelling, history = Swelling(), history_of([STEP] * start)
    for number, of_layers in enumerate(sizes):
        update = updates[number] if updates else None
        history.append(stats(history.count, STEP, input_size=np.array(of_layers), total_update=update))
        swelling.look(history, signal=1e3, step_update=0.5)
    return swelling


@pytest.mark.parametrize(
    ("sizes", "beyond"),
    [
        ([4.0, 10.0, 30.0, 60.0], True),
        ([4.0, 10.0, 30.0, 0.9 * LARGE], False),
        ([6.0, 10.0, 30.0, 5.9 * RISE], False),  # large from the start
        ([4.0, 4.0, 4.0, 60.0], False),  # in one place
        ([4.0, NAN, 15.0, 60.0], True),
        ([4.0, 0.0, 15.0, 60.0], True),
        ([4.0, 1e7, 15.0, 60.0], True),  # a bias before a normalisation, whose gradient is rounding
        ([4.0, 10.0, 15.0, 1e7], False),  # or the last, of a loss that is blind to it
        ([NAN, NAN, 4.0, 60.0], False),  # two are no row
        ([NAN, NAN, NAN, NAN], False),
        ([4.0, 10.0, 30.0, INF], False),  # unknown
    ],
)
def test_growth_from_layer_to_layer(sizes: list[float], beyond: bool) -> None:
    assert looked(sizes).is_beyond(LARGE, RISE) is beyond


def test_looks_in_a_row_at_the_first_steps() -> None:
    grows, not_so, far = [4.0, 10.0, 30.0, 60.0], [4.0, 10.0, 30.0, 35.0], [4.0, 50.0, 500.0, 5e3]
    units, one = [300.0, 250.0, 400.0, 300.0], [300.0, 1e7, 1e7, 9.0]  # large data; biases before a normalisation
    for sizes, large, looks in (
        ((grows, grows, far), 3, 0),
        ((far, far, not_so), 0, 0),
        ((not_so, far), 1, 0),  # what the first steps have done
        ((far, grows, far), 3, 0),
        ((far, far, far), 3, 3),
        ((units, units), 2, 0),
        ((one, one), 0, 0),
    ):
        swelling = looked(*sizes)
        assert (swelling["large"], swelling["looks"]) == (large, looks)
    assert looked(far, far, start=LOOK)["looks"] == 0


def test_a_large_step_is_to_blame_itself() -> None:
    far = [4.0, 50.0, 500.0, 5e3]
    assert looked(far, far, far, updates=(0.1, 0.6, 0.1))["looks"] == 0
    assert looked(far, far, updates=(0.1, NAN))["looks"] == 2


def test_the_layers_above_a_size() -> None:
    swelling = looked([4.0, NAN, 15.0, 60.0])
    history = history_of([*slow(STEP, left=1.0)])
    assert history.latest is not None
    assert swelling.layers_above(10.0, history.latest).tolist() == [False, False, True, True]


def test_steps_without_a_look_change_nothing() -> None:
    swelling, history = looked([4.0, 10.0, 30.0, 60.0]), history_of([STEP])
    swelling.look(history, signal=1e3, step_update=0.5)
    assert swelling["large"] == 1
