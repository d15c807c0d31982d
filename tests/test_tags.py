from __future__ import annotations

import numpy as np
import pytest

from gradwatch import tags

TENSORS = (tags.NORMS, tags.SAMPLED, tags.UPDATE_RATIO)

by_tensor = pytest.mark.parametrize("prefix", TENSORS)


@by_tensor
def test_a_chunk_holds_chunk_steps(prefix: str) -> None:
    size = tags.CHUNK_STEPS
    first, last, next_chunk = (tags.chunk_tag(prefix, step, ["a"]) for step in (0, size - 1, size))
    assert first == last != next_chunk


@by_tensor
def test_chunks_sort_as_their_steps(prefix: str) -> None:
    names = [tags.chunk_tag(prefix, chunk * tags.CHUNK_STEPS, ["a"]) for chunk in (0, 9, 10, 99, 100, 99_999)]
    assert names == sorted(set(names))
    assert all(name.startswith(f"{prefix}/") for name in names)


def test_each_tensor_and_each_set_of_layers_has_its_own_tags() -> None:
    names = [
        tags.chunk_tag(prefix, 0, layers) for prefix in TENSORS for layers in (["a"], ["b"], ["a", "b"], ["b", "a"])
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("layer", "tag"),
    [
        ("fc", "fc"),
        ("encoder.0.attention", "encoder.0.attention"),
        ("a/b/c", "a|b|c"),
        ("a|b", "a%7Cb"),
        ("100%", "100%25"),
        ("", ""),
        ("x" * 300, "x" * 300),
        ("ü 层", "ü 层"),
        ("\n\x1b", "%0A%1B"),
        ("\u202e", "%E2%80%AE"),
        ("\ud800", "%ED%A0%80"),
    ],
    ids=ascii,
)
def test_a_layer_tag_has_one_slash(layer: str, tag: str) -> None:
    assert tags.layer_tag(tags.LAYER_NORM, layer) == f"{tags.LAYER_NORM}/{tag}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fc: dead, ü 层 \U0001f525", "fc: dead, ü 层 \U0001f525"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31m\x07", "\\x1b[31m\\x07"),
        ("\u202e\u2028\ud800\xa0", "\\u202e\\u2028\\ud800\\xa0"),
        ('it\'s "a\\b"', 'it\'s "a\\b"'),
        ("", ""),
    ],
    ids=ascii,
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, expected: str) -> None:
    assert tags.printable(text) == expected
    assert tags.printable(expected) == expected
    assert expected.isprintable()


def test_names_that_hold_a_separator_are_no_other_set_of_layers() -> None:
    sets = (["a\nb"], ["a", "b"], ["a, b"], ['a", "b'], ["a,b"], [])
    assert len({tags.chunk_tag(tags.NORMS, 0, layers) for layers in sets}) == len(sets)


def test_no_gradient_is_no_norm() -> None:
    assert tags.NO_GRADIENT < 0


def test_histogram_edges_are_quarter_decades() -> None:
    np.testing.assert_allclose(np.diff(tags.HISTOGRAM_EDGES), 0.25, rtol=1e-12)
    assert (tags.HISTOGRAM_EDGES[0], tags.HISTOGRAM_EDGES[-1]) == (-16.0, 4.0)


def test_tags_are_distinct() -> None:
    names = [value for name, value in vars(tags).items() if name.isupper() and isinstance(value, str)]
    assert len(names) == len(set(names))
