"""What is handed on to the policies within a policy."""

import pytest
import torch

from gradwatch.clipping import AGC, AutoClip, Chain, GlobalNorm, PerGroup, SkipNonFinite, Value, ZClip
from gradwatch.clipping.several import Several, check_parameters, remembers


class Mine:
    """A user's own policy, with all that one may have."""

    def __init__(self) -> None:
        self.seen = None

    def clip_(self, gradients, stats): ...

    def check_parameters(self, parameters):
        self.seen = list(parameters)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_all_is_handed_on_to_those_that_have_a_use_for_it():
    mine = Mine()
    several = Several("Mine: policies", {"a": mine, "b": GlobalNorm(1.0), "c": ZClip()})
    several.check_parameters({"fc.weight": torch.zeros(1)})
    assert mine.seen == ["fc.weight"]
    state = several.state_dict()
    assert list(state) == ["a", "c"]
    again = Several("Mine: policies", {"a": Mine(), "b": GlobalNorm(1.0), "c": ZClip()})
    again.load_state_dict(state)
    assert again.policies["a"].seen == ["fc.weight"]


def test_one_that_is_new_starts_anew():
    mine = Mine()
    Several("Mine: policies", {"new": mine}).load_state_dict({"old": {"seen": 1}})
    assert mine.seen is None


def test_one_without_a_check_takes_everything():
    check_parameters(GlobalNorm(1.0), {"a": torch.zeros(1)})
    check_parameters(Value(1.0), {})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (GlobalNorm(1.0), False),
        (AGC(), False),
        (AutoClip(), True),
        (SkipNonFinite(), True),
        (Mine(), True),
        (Chain(Value(1.0), GlobalNorm(1.0)), False),
        (Chain(SkipNonFinite(), GlobalNorm(1.0)), True),
        (PerGroup({"a": ZClip(), "b": ZClip()}), False),  # each group for itself
        (Chain(PerGroup({"a": ZClip()})), False),
        (Chain(PerGroup({"a": ZClip()}), ZClip()), True),
    ],
)
def test_what_remembers_all_gradients_together(policy, expected):
    assert remembers(policy) is expected
