"""What every cause owes its user, whatever the history, whatever the profile and whatever the alerts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from gradwatch import Alert, History, Severity, diagnosis, rules
from gradwatch.profile import BackwardProfile
from gradwatch.protocols import Cause
from gradwatch.records import CHANGES, Diagnosis, to_plain
from tests.diagnosis.profiles import PROFILES, alert
from tests.histories import CHANGING, HOSTILE, NAN, Run, healthy, history_of, look, stats

RULES = [rule.name for rule in rules.default()]  # type: ignore[attr-defined]

every_cause = pytest.mark.parametrize("cause", diagnosis.default(), ids=lambda cause: type(cause).__name__)
every_run = pytest.mark.parametrize("run", [*HOSTILE.values(), *CHANGING.values()], ids=[*HOSTILE, *CHANGING])
every_profile = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


def check(found: Diagnosis | None) -> None:
    """That it is one that can be shown, written and applied."""
    if found is None:
        return
    assert 0.0 <= found.confidence <= 1.0
    assert all(isinstance(name, str) and name for name in found.layers)
    assert found.evidence
    assert all(sentence and "nan" not in sentence.split() for sentence in found.evidence)
    assert found.remedy
    assert "nan" not in found.remedy.replace(":", " ").split()
    assert found.change in {*CHANGES, ""}
    assert json.loads(json.dumps(to_plain(found), allow_nan=False)) == to_plain(found)


@every_cause
@every_run
def test_any_history_with_any_alert(cause: Cause, run: Run) -> None:
    history = history_of(run)
    for rule in RULES:
        for layer in (None, "a layer that left", *history.layers[:1]):
            single = Alert(len(run) - 1, rule, layer, Severity.ERROR, float("nan"), 0.0, "")
            check(cause.explain(history, None, [single]))


@every_cause
@every_profile
def test_any_profile_with_any_alert(cause: Cause, profile: BackwardProfile) -> None:
    rng = np.random.default_rng(0)
    seen = History()
    for step in range(40):
        norms = {f"fc{i}": float(rng.lognormal()) for i in range(4)}
        seen.append(stats(step, norms, param_norm=rng.lognormal(size=4), numel=np.full(4, 64.0), **look(rng, 4)))
    for history in (History(), history_of(HOSTILE["NaN from the first step"]), seen):
        for rule in RULES:
            check(cause.explain(history, profile, [alert(rule, None, step=39), alert(rule, "fc0", step=39)]))


def numbered(name: str) -> str:
    """A layer's name as those of nn.Sequential are; that of each profile's layers is another number."""
    return f"77.{sum(map(ord, name))}" if name else ""


@every_cause
@every_profile
def test_a_number_is_called_a_layer(cause: Cause, profile: BackwardProfile) -> None:
    origin = profile.nonfinite
    called = replace(
        profile,
        segments=tuple(replace(s, layer=numbered(s.layer)) for s in profile.segments),
        weights=tuple(replace(w, name=f"{numbered(w.name.removesuffix('.weight'))}.weight") for w in profile.weights),
        time_steps=tuple(replace(t, layer=numbered(t.layer)) for t in profile.time_steps),
        nonfinite=None if origin is None else replace(origin, module=numbered(origin.module)),
    )
    names = [numbered(f"fc{i}") for i in range(4)]
    history = history_of([dict.fromkeys(names, 1.0)] * 30 + [dict(zip(names, (0.0, 1e9, NAN, 1e4)))])
    for rule in RULES:
        alerts = [alert(rule, name, step=30, value=value) for name in names[:2] for value in (0.0, 1e9)]
        for seen in (called, None):
            found = cause.explain(history, seen, alerts)
            for sentence in () if found is None else (found.remedy, *found.evidence):
                bare = re.findall(r"(\S+ )(?:77\.\d+, )*77\.\d+", sentence)
                assert {*bare} <= {"layer ", "layers ", "and ", "... ", "normalisations "}, sentence


@every_cause
@every_run
def test_without_an_alert_there_is_nothing_to_explain(cause: Cause, run: Run) -> None:
    assert cause.explain(history_of(run), None, []) is None


@every_cause
@every_profile
def test_a_profile_alone_is_no_fault(cause: Cause, profile: BackwardProfile) -> None:
    assert cause.explain(history_of(healthy(steps=40)), profile, []) is None


@every_cause
@every_profile
def test_what_follows_from_another_fault_is_not_explained_by_itself(cause: Cause, profile: BackwardProfile) -> None:
    follows = [alert(rule, follows="exploding", value=1e9) for rule in RULES]
    assert cause.explain(history_of(HOSTILE["one NaN"]), profile, follows) is None


@every_cause
@every_profile
def test_good_news_is_no_fault(cause: Cause, profile: BackwardProfile) -> None:
    recovered = [alert(rule, severity=Severity.INFO) for rule in RULES]
    assert cause.explain(history_of(HOSTILE["one NaN"]), profile, recovered) is None


@every_cause
def test_an_alert_of_an_unknown_rule_explains_nothing(cause: Cause) -> None:
    for run in HOSTILE.values():
        assert cause.explain(history_of(run), PROFILES["sigmoids"], [alert("mine")]) is None


@every_cause
@every_run
def test_without_a_probed_step_no_cause_is_certain(cause: Cause, run: Run) -> None:
    found = cause.explain(history_of(run), None, [alert("vanishing", step=len(run)), alert("dead", step=len(run))])
    assert found is None or (found.confidence <= 0.5 and any("probed step" in s for s in found.evidence))


def test_default_causes_meet_the_protocol() -> None:
    assert all(isinstance(cause, Cause) for cause in diagnosis.default())


def test_no_cause_is_there_twice() -> None:
    names = [type(cause).__name__ for cause in diagnosis.default()]
    assert sorted(names) == sorted(set(names))
    assert set(names) == set(diagnosis.__all__) - {"Cause", "default"}


FAULTS = {
    "sigmoids": ("vanishing", "bounded_activation"),
    "small": ("vanishing", "small_weights"),
    "deep and narrow": ("vanishing", "plain_depth"),
    "large": ("exploding", "large_weights"),
    "residual": ("exploding", "residual_branches"),
    "saturated": ("saturated", "saturation"),
    "dead": ("dead", "dead_units"),
    "recurrent": ("vanishing_in_time", "vanishing_in_time"),
    "not finite, forward": ("nonfinite", "first_nonfinite"),
    "float16": ("overflow", "loss_scale"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_from_the_others(name: str) -> None:
    rule, cause = FAULTS[name]
    history = history_of(HOSTILE["one NaN"][:41])
    alerts = [alert(rule, step=40)]
    found = [d for c in diagnosis.default() if (d := c.explain(history, PROFILES[name], alerts)) is not None]
    assert max(found, key=lambda d: d.confidence).cause == cause
