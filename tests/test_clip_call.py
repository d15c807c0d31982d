"""One call of a clip policy: what it is given, and what is taken of what it gives back."""

import pytest
import torch

from gradwatch.clip_call import clip_unscaled, in_floats, tensors_of
from gradwatch.clipping import GlobalNorm
from gradwatch.records import ClipRecord
from gradwatch.stats import measure
from tests.tensors import INF, NAN


def call(policy, *gradients, factors=None):
    """With gradients that a scaler may have multiplied; what is measured is of the true ones."""
    factors = factors or [None] * len(gradients)
    true = [g if f is None else g / f for g, f in zip(gradients, factors)]
    return clip_unscaled(policy, gradients, measure(true), factors)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, r"clip_\(\) must give a ClipRecord, got None"),
        (ClipRecord("mine", "1", 1.0, 1.0, 1.0), r"must give numbers in its ClipRecord, got '1'"),
        (ClipRecord("mine", 1.0, 1.0, 1.0, 1.0, clipped=None), r"must give numbers in its ClipRecord, got None"),
        (ClipRecord("mine", torch.ones(2), 1.0, 1.0, 1.0), r"must give numbers in its ClipRecord, got tensor"),
        (ClipRecord("mine", 1.0, 1.0, 1.0, 1.0, parts=(None,)), r"must give a ClipRecord, got None"),
    ],
)
def test_a_record_that_is_none_is_refused(record, message):
    class Mine:
        def clip_(self, gradients, stats):
            return record

    with pytest.raises(TypeError, match=message):
        call(Mine(), torch.ones(2))


@pytest.mark.parametrize("scale", [1.0, 2.0**16, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_limit_is_for_the_true_gradients(scale, dtype):
    gradient = (torch.tensor([3.0, 4.0]) * min(scale, 1e4)).to(dtype)
    record = call(GlobalNorm(1.0), gradient, factors=[torch.tensor(min(scale, 1e4))])
    assert (record.norm_before, record.coefficient) == pytest.approx((5.0, 0.2), rel=2e-3)
    assert gradient.tolist() == pytest.approx([0.6 * min(scale, 1e4), 0.8 * min(scale, 1e4)], rel=2e-3)


def test_what_is_within_the_limit_stays_to_the_last_bit():
    gradient = torch.tensor([0.1, 0.7])
    before = gradient.clone()
    assert call(GlobalNorm(10.0), gradient, factors=[torch.tensor(3.0)]).coefficient == 1.0
    assert torch.equal(gradient, before)


@pytest.mark.parametrize("value", [NAN, INF])
def test_what_is_not_finite_is_told_as_it_is(value):
    record = call(GlobalNorm(1.0), torch.tensor([value, 1.0]))
    assert record.norm_before == pytest.approx(value, nan_ok=True)


def test_without_gradients_and_with_empty_ones():
    assert call(GlobalNorm(1.0)).norm_before == 0.0
    assert call(GlobalNorm(1.0), torch.zeros(0)).norm_before == 0.0


def test_numbers_that_a_policy_left_on_the_device_come_back_to_their_places():
    there = torch.ones((), device="meta")
    part = ClipRecord("part", 1.5, there, 1.0, there, group="a", clipped=0.0)
    left = ClipRecord("whole", there, 2.5, there, 0.5, clipped=there, parts=(part, part))
    assert len(tensors_of(left)) == 7
    assert in_floats(left) == left  # waits for nothing
    came = in_floats(left, iter([10.0, 11.0, 12.0, 20.0, 21.0, 30.0, 31.0]))
    first, second = (
        ClipRecord("part", 1.5, a, 1.0, b, group="a", clipped=0.0) for a, b in ((20.0, 21.0), (30.0, 31.0))
    )
    assert came == ClipRecord("whole", 10.0, 2.5, 11.0, 0.5, clipped=12.0, parts=(first, second))
