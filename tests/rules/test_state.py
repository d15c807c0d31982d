from __future__ import annotations

import numpy as np
import pytest

from gradwatch.rules.state import LayerState, ModelState


def filled() -> LayerState:
    state = LayerState(peak=np.nan, steps=0, open=False)
    state.align(("a", "b", "c"))
    state["peak"] = np.array([1.0, 2.0, 3.0])
    state["steps"] = np.array([1, 2, 3])
    state["open"] = np.array([True, False, True])
    return state


@pytest.mark.parametrize(
    ("layers", "peak", "steps", "is_open"),
    [
        (("a", "b", "c"), [1.0, 2.0, 3.0], [1, 2, 3], [True, False, True]),
        (("c", "a"), [3.0, 1.0], [3, 1], [True, True]),
        (("b", "new", "c"), [2.0, np.nan, 3.0], [2, 0, 3], [False, False, True]),
        (("x", "y"), [np.nan, np.nan], [0, 0], [False, False]),
        ((), [], [], []),
    ],
)
def test_layers_keep_what_is_theirs(
    layers: tuple[str, ...], peak: list[float], steps: list[int], is_open: list[bool]
) -> None:
    state = filled()
    state.align(layers)
    np.testing.assert_array_equal(state["peak"], peak)
    assert state["steps"].tolist() == steps
    assert state["open"].tolist() == is_open
    assert [state[name].dtype.kind for name in ("peak", "steps", "open")] == ["f", "i", "b"]


def test_a_layer_that_comes_back_is_new() -> None:
    state = filled()
    state.align(())
    state.align(("a",))
    assert state["steps"].tolist() == [0]


def test_a_thousand_layers_swap_places() -> None:
    names = tuple(f"fc{i}" for i in range(1000))
    state = LayerState(number=0)
    state.align(names)
    state["number"] = np.arange(1000)
    state.align(names[::-1])
    assert state["number"].tolist() == list(range(999, -1, -1))


def test_state_dict_is_a_copy_that_goes_both_ways() -> None:
    state, saved = filled(), filled().state_dict()
    restored = LayerState(peak=np.nan, steps=0, open=False)
    restored.load_state_dict(saved)
    saved["steps"][:] = 9
    assert restored.layers == state.layers
    for name in ("peak", "steps", "open"):
        np.testing.assert_array_equal(restored[name], state[name])
        assert restored[name].dtype == state[name].dtype


def test_numbers_of_the_model_keep_their_type() -> None:
    state = ModelState(looks=0, share=np.nan, so_far=True)
    state["looks"], state["share"], state["so_far"] = np.int64(3), np.float32(0.5), np.bool_(False)
    assert [type(state[name]) for name in ("looks", "share", "so_far")] == [int, float, bool]
    other = ModelState(looks=0, share=np.nan, so_far=True)
    other.load_state_dict(state.state_dict())
    assert other.state_dict() == state.state_dict() == {"looks": 3, "share": 0.5, "so_far": False}
