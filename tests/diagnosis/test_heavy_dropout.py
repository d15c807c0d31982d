from __future__ import annotations

import math

import pytest

from gradwatch import History
from gradwatch.diagnosis import HeavyDropout
from tests.diagnosis.profiles import alert


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (0.95, "keeps 0.05 of what it is given, and multiplies it by 20"),
        (1.0, "a dropout layer sets all that it is given to zero"),
    ],
)
def test_what_is_kept(p: float, says: str) -> None:
    found = HeavyDropout().explain(History(), None, [alert("heavy_dropout", None, value=p)])
    assert found is not None
    assert (found.cause, found.layers, found.change) == ("heavy_dropout", (), "dropout")
    assert says in found.evidence[0]


@pytest.mark.parametrize("p", [0.0, 2.0, math.nan])
def test_no_share_is_no_cause(p: float) -> None:
    assert HeavyDropout().explain(History(), None, [alert("heavy_dropout", None, value=p)]) is None
