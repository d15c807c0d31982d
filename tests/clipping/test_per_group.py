"""PerGroup: each group as if it were all."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch.clipping import AGC, AutoClip, GlobalNorm, PerGroup, PerLayer, SkipNonFinite, Value, ZClip
from gradwatch.stats import Measured, measure
from tests.clipping.test_every_policy import copies, gradients_of, same_bits
from tests.tensors import NAN

NAMES = ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "head.weight", "head.bias"]


def named(gradients, names=None, parameters=()) -> Measured:
    measured = measure(gradients)
    names = NAMES[: len(gradients)] if names is None else names
    return Measured(measured.norms, measured.total_norm, names=names, parameters=parameters)


def of_norm(*norms: float) -> list[torch.Tensor]:
    return [torch.tensor([norm], dtype=torch.float64) for norm in norms]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    limits=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_is_the_policy_of_each_group_alone_bit_for_bit(seed, limits, dtype):
    gradients = gradients_of([(3,), (2,), (4, 2), (5,), (1,)], dtype, 0, seed)
    alone, total = copies(gradients), float(measure(gradients).total_norm)
    record = PerGroup({"encoder.*": limits[0], "head": Value(limits[1])}).clip_(gradients, named(gradients))
    expected = [
        GlobalNorm(limits[0]).clip_(alone[:3], measure(alone[:3])),
        Value(limits[1]).clip_(alone[3:], measure(alone[3:])),
    ]
    assert same_bits(gradients, alone)
    assert [part.group for part in record.parts] == ["encoder.*", "head"]
    for part, other in zip(record.parts, expected):
        assert (part.policy, part.threshold) == (other.policy, other.threshold)
        assert float(part.norm_before) == pytest.approx(float(other.norm_before), rel=1e-6)
        assert float(part.clipped) == float(other.clipped)
    assert float(record.norm_before) == pytest.approx(total, rel=1e-6)
    assert float(record.norm_after) == pytest.approx(float(measure(gradients).total_norm), rel=1e-6)
    assert float(record.clipped) == sum(float(part.clipped) for part in expected) / 2


def test_the_first_pattern_that_matches_counts_and_what_none_matches_is_left_alone():
    gradients = of_norm(3.0, 4.0, 2.0, 6.0, 8.0)
    record = PerGroup({"encoder.1": 1.0, "encoder.*": 2.5}).clip_(gradients, named(gradients))
    assert [g.item() for g in gradients] == pytest.approx([1.5, 2.0, 1.0, 6.0, 8.0], rel=1e-6)
    assert float(record.norm_after) == pytest.approx(math.hypot(2.5, 1.0, 10.0), rel=1e-6)


def test_one_factor_is_claimed_only_where_nothing_was_clipped():
    gradients = of_norm(3.0, 4.0, 2.0, 6.0, 8.0)
    policy = PerGroup({"encoder.*": 100.0, "*": 100.0})
    assert policy.clip_(gradients, named(gradients)).coefficient == 1.0
    assert math.isnan(PerGroup({"encoder.*": 1.0}).clip_(gradients, named(gradients)).coefficient)


def test_a_group_that_is_not_finite_is_left_alone_and_the_others_clipped():
    gradients = of_norm(NAN, 1.0, 1.0, 6.0, 8.0)
    PerGroup({"encoder.*": 0.1, "head": 1.0}).clip_(gradients, named(gradients))
    np.testing.assert_allclose([g.item() for g in gradients], [NAN, 1.0, 1.0, 0.6, 0.8], rtol=1e-6)


def test_every_group_has_a_memory_of_its_own():
    policy = PerGroup({"encoder.*": AutoClip(50), "head": AutoClip(50)})
    for scale in (1.0, 2.0, 3.0):
        gradients = of_norm(scale, 0.0, 0.0, 100 * scale, 0.0)
        record = policy.clip_(gradients, named(gradients))
    assert [float(part.threshold) for part in record.parts] == [2.0, 200.0]
    again = PerGroup({"encoder.*": AutoClip(50), "head": AutoClip(50)})
    again.load_state_dict(policy.state_dict())
    gradients = of_norm(9.0, 0.0, 0.0, 900.0, 0.0)
    assert [float(part.threshold) for part in again.clip_(gradients, named(gradients)).parts] == [2.5, 250.0]


def test_a_group_without_gradients_is_not_asked():
    """As when two optimizers take turns, each with the parameters of one group."""
    policy = PerGroup({"encoder.*": SkipNonFinite(max_consecutive=5), "head": ZClip()})
    policy.check_parameters({name: torch.zeros(1) for name in NAMES})
    for _ in range(3):
        bad = of_norm(NAN)
        assert [p.group for p in policy.clip_(bad, named(bad, ["encoder.0.weight"])).parts] == ["encoder.*"]
        good = of_norm(1.0)
        assert [p.group for p in policy.clip_(good, named(good, ["head.weight"])).parts] == ["head"]
    assert policy.state_dict()["encoder.*"] == {"in_a_row": 3}
    assert policy.state_dict()["head"]["count"] == 3
    assert policy.clip_([], named([], [])).parts == ()


def test_the_parameters_of_a_group_come_with_it():
    gradients = of_norm(1.0, 1.0)
    parameters = [torch.tensor([10.0]), torch.tensor([100.0])]
    PerGroup({"a": AGC(0.01), "b": AGC(0.001)}).clip_(gradients, named(gradients, ["a.weight", "b.weight"], parameters))
    assert [g.item() for g in gradients] == pytest.approx([0.1, 0.1])


def test_elsewhere_than_on_the_cpu_nothing_waits():
    norms = torch.ones(2, device="meta")
    stats = Measured(norms, torch.linalg.vector_norm(norms), names=("a.weight", "b.weight"))
    record = PerGroup({"a": PerLayer(1.0), "b": ZClip()}).clip_([torch.ones(3, device="meta")] * 2, stats)
    assert record.norm_after.is_meta


class TestRefuses:
    def test_groups_that_are_none(self):
        with pytest.raises(
            TypeError, match=r"PerGroup: groups must be a mapping from pattern to number or policy, got 1"
        ):
            PerGroup(1.0)
        with pytest.raises(ValueError, match=r"PerGroup: groups must be one policy or more, got none"):
            PerGroup({})
        with pytest.raises(TypeError, match=r"PerGroup: groups\[\*\] must be a clip policy, got 'x'"):
            PerGroup({"*": "x"})
        with pytest.raises(TypeError, match=r"PerGroup: groups takes patterns such as 'encoder.\*', got 3"):
            PerGroup({3: 1.0})
        with pytest.raises(ValueError, match=r"PerGroup: groups\['a'\] must be above 0, got 0"):
            PerGroup({"a": 0})

    def test_one_memory_for_two(self):
        policy = ZClip()
        with pytest.raises(ValueError, match=r"has one policy with a memory twice"):
            PerGroup({"a": policy, "b": policy})
        PerGroup({"a": (plain := GlobalNorm(1.0)), "b": plain})

    def test_a_pattern_that_matches_nothing(self):
        parameters = {name: torch.zeros(1) for name in NAMES}
        with pytest.raises(
            ValueError, match=r"PerGroup: groups: the pattern 'decoder.\*' matches no layer; .*encoder.0"
        ):
            PerGroup({"decoder.*": 1.0}).check_parameters(parameters)
        with pytest.raises(ValueError, match=r"all that 'encoder.0' matches belongs to a pattern before it"):
            PerGroup({"encoder.*": 1.0, "encoder.0": 2.0}).check_parameters(parameters)
        PerGroup({"encoder.*": 1.0, "head": 2.0, "*": 3.0}).check_parameters(parameters)  # nothing may be left

    def test_a_pattern_within(self):
        nested = PerGroup({"encoder.*": PerGroup({"head": 1.0})})
        with pytest.raises(ValueError, match=r"the pattern 'head' matches no layer"):
            nested.check_parameters({name: torch.zeros(1) for name in NAMES})

    def test_gradients_without_names(self):
        with pytest.raises(ValueError, match=r"PerGroup goes by the names of parameters, and Measured.names has none"):
            PerGroup({"*": 1.0}).clip_(of_norm(1.0), measure(of_norm(1.0)))
