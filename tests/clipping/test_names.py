"""Which parameters a pattern means."""

import pytest
import torch

from gradwatch.clipping.names import Patterns, index, layer_of, names_of
from gradwatch.stats import measure

NAMES = ["embedding.weight", "blocks.0.fc.weight", "blocks.0.fc.bias", "blocks.10.fc.weight", "head.weight", "scale"]


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("fc.weight", "fc"),
        ("scale", ""),
        ("a.b.c.bias", "a.b.c"),
        ("fc.parametrizations.weight.original0", "fc"),
        ("parametrizations.weight.original", ""),
        ("rnn.weight_ih_l0", "rnn"),
        ("x" * 300 + ".weight", "x" * 300),
        ("ä/ö [0].weight", "ä/ö [0]"),
    ],
)
def test_the_layer_of_a_parameter(parameter, layer):
    assert layer_of(parameter) == layer


@pytest.mark.parametrize(
    ("patterns", "split"),
    [
        (("*",), ((0, 1, 2, 3, 4, 5), ())),
        (("head",), ((4,), (0, 1, 2, 3, 5))),
        (("*.bias", "blocks.*"), ((2,), (1, 3), (0, 4, 5))),
        (("blocks.0.*", "blocks.?.*"), ((1, 2), (), (0, 3, 4, 5))),
        (("scale", "head.weight"), ((5,), (4,), (0, 1, 2, 3))),
        ((), ((0, 1, 2, 3, 4, 5),)),
    ],
)
def test_the_first_pattern_that_matches_counts(patterns, split):
    assert Patterns("exclude", patterns).split(NAMES) == split


def test_other_names_are_split_anew():
    patterns = Patterns("exclude", ("head",))
    assert patterns.split(NAMES)[0] == (4,)
    assert patterns.split(["head.weight", "body.weight"]) == ((0,), (1,))
    assert patterns.split([]) == ((), ())


def test_a_pattern_that_matches_nothing_names_those_that_there_are():
    patterns = Patterns("AGC: exclude", ("haed",))
    assert not patterns.checked
    with pytest.raises(
        ValueError, match=r"AGC: exclude: the pattern 'haed' matches no layer; .*: embedding, blocks.0.fc"
    ):
        patterns.check(NAMES)
    with pytest.raises(ValueError, match=r"the layers are: scale"):
        patterns.check(["scale"])


def test_names_that_are_not_there():
    with pytest.raises(ValueError, match=r"AGC goes by the names of parameters, and Measured.names has none"):
        names_of(measure([torch.ones(1)]), "AGC")
    assert list(names_of(measure([]), "AGC")) == []


def test_an_index_is_sent_once():
    device = torch.device("cpu")
    assert index((0, 2), device) is index((0, 2), device)
    assert index((), device).dtype == torch.int64
