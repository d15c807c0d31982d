"""24 programs of the development half, trained and judged anew: every fault is an error, and no trap is.

Every family of faults has one but two, whose programs take longest: `subcritical`, with weights too small as in
`tiny-init`, and `no-norm`, with a learning rate too high as in `high-lr`. Of the healthy ones each has another trap.
"""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.detection import split
from benchmarks.detection.detectors import Finding, gradwatch_rules
from benchmarks.detection.labels import FAULTY, HEALTHY, RECORDED_SEED, LabelFile
from benchmarks.detection.programs import ALL
from benchmarks.detection.recorder import record

FAULTS = (
    "sigmoid/mlp-5-cancer",
    "tiny-init/cnn-4",
    "no-residual/relu-12",
    "rnn-vanishing/parity-30",
    "large-init/mlp-8",
    "rnn-exploding/parity",
    "high-lr/mlp-4-adam",
    "unscaled-data/wine-raw",
    "half-precision/stuck-scaler",
    "dead-relu/iris-narrow-10",
    "saturated/tanh-4",
    "nonfinite/spread",
)
TRAPS = {
    "partly-frozen/lora": "B is 0, so A has no gradient at first",
    "architectures/last-layer-zero": "each branch ends with a layer of 0",
    "architectures/sigmoid-2-batch-norm": "the biases before BatchNorm have rounding errors for gradients",
    "optimisers-and-losses/loss-1e-8": "the gradients are as small, and Adam makes up for it",
    "sparse/bag-of-words-sparse": "most rows of the embedding have no gradient",
    "deep/digits-gelu-7x64": "its gradient vanishes at first",
    "optimisers-and-losses/converged-iris": "the gradient falls by orders of magnitude",
    "partly-frozen/gradual": "layers are idle, and join late",
    "half-precision/cnn-first-steps-skipped": "the scaler starts too high, and skips steps by design",
    "generative/gan": "two players, whose losses do not fall",
    "optimisers-and-losses/bad-batch-sgd": "one batch is 30 times too large, and it recovers",
    "small-transformers/post-6-warm-up": "LayerNorm after each sum; the queries and keys start almost still",
}
BY_NAME = {program.name: program for program in ALL}
SUBSET = {**dict.fromkeys(FAULTS, FAULTY), **{f"healthy-{name}": HEALTHY for name in TRAPS}}


@cache
def findings(name: str) -> list[Finding]:
    """What gradwatch's default rules say of the recorded run, trained anew."""
    recording, _ = record(BY_NAME[name].build(RECORDED_SEED))
    return gradwatch_rules.detect(recording)


def errors(name: str) -> list[Finding]:
    return [finding for finding in findings(name) if finding.severity == "error"]


def test_all_are_of_the_development_half_and_no_family_but_two_is_missing() -> None:
    halves = split.read()
    assert {halves[name] for name in SUBSET} == {split.DEV}
    assert len(SUBSET) == 24
    families = {program.family for program in ALL}
    assert families - {BY_NAME[name].family for name in SUBSET} == {"subcritical", "no-norm"}


def test_each_is_what_it_is_labelled() -> None:
    labels = LabelFile.read().labels
    found = {name: labels[name].label for name in SUBSET if name in labels}
    assert found == {name: SUBSET[name] for name in found}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_an_error(name: str) -> None:
    assert errors(name)


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_none(name: str) -> None:
    assert errors(f"healthy-{name}") == []
