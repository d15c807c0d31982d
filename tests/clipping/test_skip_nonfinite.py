"""SkipNonFinite: a bad batch is passed over, a broken run is stopped."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.clipping.skip import TooManySkipped
from gradwatch.clipping.skip_nonfinite import SkipNonFinite
from gradwatch.stats import Measured, measure
from tests.clipping.norms import clip, run
from tests.tensors import INF, NAN


def measured(*values, **more):
    """One parameter, named p0, p1, ..., for each value of its gradient."""
    parameters = [torch.zeros(1, requires_grad=True) for _ in values]
    for parameter, value in zip(parameters, values):
        parameter.grad = torch.tensor([value])
    gradients = [p.grad for p in parameters]
    found = measure(gradients)
    names = [f"p{i}" for i in range(len(values))]
    return gradients, Measured(found.norms, found.total_norm, names=names, parameters=parameters, **more)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_skips_a_step_that_is_not_finite(value):
    gradients, stats = measured(1.0, value)
    record = SkipNonFinite().clip_(gradients, stats)
    assert [p.grad for p in stats.parameters] == [None, None]
    assert (record.policy, record.norm_after, record.coefficient, record.clipped) == ("skip_non_finite", 0, 0, 1)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_leaves_a_finite_step_alone(value):
    gradients, stats = measured(1.0, value)
    record = SkipNonFinite().clip_(gradients, stats)
    assert [p.grad.item() for p in stats.parameters] == [1.0, pytest.approx(value)]
    assert (record.coefficient, record.clipped) == (1.0, 0.0)
    assert float(record.norm_after) == float(record.norm_before) == float(stats.total_norm)


def test_stops_after_so_many_in_a_row_and_names_the_first_parameters():
    policy = SkipNonFinite(max_consecutive=2)
    run(policy, [NAN, NAN, 1.0, NAN, INF])
    gradients, stats = measured(0.0, NAN, 1.0, INF, NAN, NAN)
    message = (
        r"SkipNonFinite: the gradients are not finite for 3 steps in a row, max_consecutive=2 may be skipped: "
        r"p1, p3, p4, \.\.\. \(4 of 6\)$"
    )
    with pytest.raises(TooManySkipped, match=message):
        policy.clip_(gradients, stats)
    assert all(p.grad is None for p in stats.parameters)  # whoever goes on does not go on with it


@given(
    norms=st.lists(st.sampled_from([1.0, 0.0, NAN, INF]), max_size=60),
    max_consecutive=st.integers(0, 5),
)
def test_stops_when_one_more_in_a_row_is_not_finite_and_not_before(norms, max_consecutive):
    policy = SkipNonFinite(max_consecutive)
    in_a_row = 0
    for norm in norms:
        in_a_row = 0 if norm < INF else in_a_row + 1
        if in_a_row > max_consecutive:
            with pytest.raises(TooManySkipped, match=f"for {in_a_row} steps in a row"):
                clip(policy, norm)
        else:
            _, after = clip(policy, norm)
            assert after == (norm if norm < INF else 0.0)


def test_what_a_grad_scaler_skips_is_left_to_it():
    policy = SkipNonFinite(max_consecutive=0)
    for _ in range(5):
        gradients, stats = measured(1.0, INF, scaled=True)
        record = policy.clip_(gradients, stats)
        assert [p.grad.item() for p in stats.parameters] == [1.0, INF]
        assert (record.coefficient, record.clipped) == (1.0, 0.0)
    assert policy.state_dict() == {"in_a_row": 0}


def test_the_count_goes_on_after_a_checkpoint():
    policy, resumed = SkipNonFinite(2), SkipNonFinite(2)
    run(policy, [NAN, NAN])
    resumed.load_state_dict(policy.state_dict())
    with pytest.raises(TooManySkipped, match=r"gradient 0 \(1 of 1\)"):
        clip(resumed, NAN)


@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_refuses_what_is_no_number_of_steps(value):
    with pytest.raises(
        (ValueError, TypeError), match=r"SkipNonFinite: max_consecutive must be a whole number from 0, got"
    ):
        SkipNonFinite(value)
