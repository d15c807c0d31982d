"""limit_total_ and factors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradwatch.clipping.limit import factors, limit_total_, untouched
from gradwatch.stats import Measured, measure
from tests.tensors import INF, NAN

NUMBERS = st.one_of(st.floats(0, 1e30), st.sampled_from([0.0, INF, NAN]))


@given(norm=NUMBERS, limit=st.one_of(st.floats(1e-30, 1e30), st.just(INF)))
def test_a_factor_brings_what_is_beyond_to_the_limit_and_is_1_for_all_else(norm, limit):
    factor = float(factors(torch.tensor(norm, dtype=torch.float64), limit))
    if limit < norm < INF:
        assert factor * norm == pytest.approx(limit, rel=1e-12)
    else:
        assert factor == 1.0


def test_a_limit_for_each():
    np.testing.assert_array_equal(factors(torch.tensor([4.0, 4.0]), torch.tensor([1.0, 8.0])), [0.25, 1.0])


def test_the_record():
    gradient = torch.tensor([3.0, 4.0])
    record = limit_total_([gradient], measure([gradient]), 2.5, "mine")
    assert gradient.tolist() == [1.5, 2.0]
    assert (record.policy, float(record.norm_before), float(record.norm_after)) == ("mine", 5.0, 2.5)
    assert (float(record.coefficient), record.threshold, float(record.clipped)) == (0.5, 2.5, 1.0)


@pytest.mark.parametrize("limit", [5.0, 6.0, INF, NAN])
def test_what_is_within_is_not_touched(limit):
    gradient = torch.tensor([3.0, 4.0])
    record = limit_total_([gradient], measure([gradient]), limit, "mine")
    assert gradient._version == 0
    assert (record.coefficient, record.clipped) == (1.0, 0.0)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_what_is_not_finite_is_not_touched(bad):
    gradient = torch.tensor([bad, 4.0])
    assert limit_total_([gradient], measure([gradient]), 1.0, "mine").coefficient == 1.0
    assert gradient._version == 0


def test_elsewhere_than_on_the_cpu_nothing_waits():
    norms = torch.ones(1, device="meta")
    stats = Measured(norms, torch.linalg.vector_norm(norms))
    record = limit_total_([torch.ones(3, device="meta")], stats, torch.ones((), device="meta"), "mine")
    assert record.norm_after.is_meta


def test_untouched():
    record = untouched(measure([torch.tensor([3.0, 4.0])]), 7.0, "mine")
    assert (float(record.norm_before), float(record.norm_after)) == (5.0, 5.0)
    assert (record.coefficient, record.threshold, record.clipped) == (1.0, 7.0, 0.0)
