"""What every rule owes its user, whatever the history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwatch import Alert, History, Severity, rules
from gradwatch.coming import Coming
from gradwatch.faults import Faults
from gradwatch.progress import EARLY
from gradwatch.records import StepStats, to_plain
from gradwatch.rota import Rota
from gradwatch.rules.base import LayerRule, StepRule
from tests.histories import CHANGING, HOSTILE, NAN, Run, healthy, history_of, layers, look, noisy, stats

RUNS = {**HOSTILE, **CHANGING}

KINDS = [type(rule) for rule in rules.default()]
LAYER_KINDS = [kind for kind in KINDS if issubclass(kind, LayerRule)]
every_rule = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_layer_rule = pytest.mark.parametrize("kind", LAYER_KINDS, ids=lambda kind: kind.name)
every_run = pytest.mark.parametrize("run", RUNS)

norms = st.one_of(st.none(), st.floats(min_value=0.0), st.just(NAN), st.sampled_from([0.0, 1e-9, 1.0, 1e5]))


def check_each(rule: StepRule, run: Run, history: History | None = None) -> list[Alert]:
    """Check after each step, as the monitor does."""
    history = history_of([]) if history is None else history
    alerts = []
    for step in run:
        history.append(stats(history.count, step))
        alerts += rule.check(history)
    return alerts


SEVERITIES = {kind: {Severity.ERROR, Severity.WARNING} for kind in (rules.Vanishing, rules.Dead, rules.Saturated)}
"""Of the rules that find worse and less bad."""


@cache
def alerts_of(kind: type[StepRule], run: str) -> list[Alert]:
    return check_each(kind(), RUNS[run])


def eager(kind: type[StepRule]) -> StepRule:
    """A rule that speaks early, so that short random histories reach its episodes."""
    early = {"patience": 2, "recovery": 2, "warmup": 3, "isolated_patience": 4}
    return kind(**{argument: steps for argument, steps in early.items() if hasattr(kind, argument)})


@every_layer_rule
@every_run
def test_alerts_are_well_formed_and_told_once_per_episode(kind: type[LayerRule], run: str) -> None:
    told = defaultdict(list)
    for alert in alerts_of(kind, run):
        names = tuple(RUNS[run][alert.step])
        assert alert.rule == kind.name
        assert set(alert.concerned) <= set(names)
        assert (alert.layer is None) == (len(alert.concerned) != 1)
        assert alert.message.startswith(names)
        assert (type(alert.value), type(alert.threshold)) == (float, float)
        for name in alert.concerned or (None,):
            told[name].append(alert.severity)
    for severities in told.values():
        assert set(severities) <= {*SEVERITIES.get(kind, {kind.severity}), Severity.INFO}
        if kind.reports_recovery:
            kept = [s for before, s in zip([None, *severities], severities) if (before, s) != RAISED]
            over = [severity is Severity.INFO for severity in kept]
            assert over == ([False, True] * len(over))[: len(over)]


RAISED = (Severity.WARNING, Severity.ERROR)
"""One episode, told of again."""


@every_rule
@pytest.mark.parametrize("run", HOSTILE)
def test_one_check_of_a_long_history_is_a_check_after_each_step(kind: type[StepRule], run: str) -> None:
    assert to_plain(kind().check(history_of(RUNS[run]))) == to_plain(alerts_of(kind, run))


class Careful:
    """Mixed into a rule: every step is judged, however calm, and every look, whatever it tells."""

    def sees(self, stats: StepStats) -> bool:
        return not stats.is_plain

    def calm_steps(self, history: History, coming: Coming) -> int:
        return 0


def is_like(step: StepStats, other: StepStats) -> bool:
    """Whether a monitor may take both in together."""
    plain = all(s.is_plain and not s.skipped for s in (step, other))
    return plain and step.layers == other.layers and bool((step.has_grad == other.has_grad).all())


def check_together(rule: StepRule, history: History, steps: Sequence[StepStats]) -> list[list[Alert]]:
    """What is found at each of ``steps``, those that are alike taken in together."""
    rota, found = Rota([rule], Faults(strict=True)), []
    for i, step in enumerate(steps):
        if i == 0 or not is_like(step, steps[i - 1]):
            alike = [step, *takewhile(partial(is_like, step), steps[i + 1 :])]
            plain = is_like(step, step)
            rota.plan(history, Coming.of(alike, history.count) if plain else None)
        history.append(step)
        found.append([alert for _, alerts in rota.check(history) for alert in alerts])
    return found


@every_rule
@every_run
@pytest.mark.parametrize("together", [1, 5, 16])
def test_a_calm_step_is_one_in_which_a_check_finds_nothing(kind: type[StepRule], run: str, together: int) -> None:
    steps = [stats(i, step) for i, step in enumerate(RUNS[run])]
    rule, history = kind(), history_of([])
    found = [check_together(rule, history, steps[i : i + together]) for i in range(0, len(steps), together)]
    assert to_plain([alert for each in found for at in each for alert in at]) == to_plain(alerts_of(kind, run))


def resumed(rule: StepRule) -> StepRule:
    """Another rule like ``rule``, which continues from its state."""
    again = replace(rule)  # type: ignore[type-var]
    again.load_state_dict(rule.state_dict())
    return again


levels = st.sampled_from([1e-9, 1e-6, 1e-3, 1.0, 30.0, 1e4, NAN, 0.0, None])


stretch = st.tuples(st.integers(1, 30), st.tuples(levels, levels, levels, levels), st.integers(0, 15))


@every_rule
@given(
    stretches=st.lists(stretch, max_size=8),
    often=st.sampled_from([0.0, 0.02, 0.5]),
    together=st.integers(1, 16),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_the_same_of_any_run_together_or_from_its_state(
    kind: type[StepRule],
    stretches: list[tuple[int, tuple[float | None, ...], int]],
    often: float,
    together: int,
    seed: int,
) -> None:
    """Each stretch of steps has its levels, its layers and what is seen of them, at a part of its steps."""
    rng = np.random.default_rng(seed)
    history, history_together, quick = history_of([]), history_of([]), eager(kind)
    rule = eager(type(kind.__name__, (Careful, kind), {}))
    again, steps, alerts = eager(kind), [], []
    for length, row, absent in stretches:
        there = {name: level for i, (name, level) in enumerate(layers(row).items()) if not absent >> i & 1}
        seen, numel = look(rng, len(there)), rng.choice([None, 1.0, 1e6])
        size = None if numel is None else np.full(len(there), numel) * rng.lognormal(0.0, 2.0, len(there))
        for _ in range(length):
            step = {name: level and level * rng.lognormal(0.0, 0.3) for name, level in there.items()}
            sampled, skipped = seen if rng.random() < often else {}, bool(rng.random() < often / 5)
            steps.append(stats(history.count, step, numel=size, skipped=skipped, **sampled))
            history.append(steps[-1])
            again = resumed(again)
            alerts.append(to_plain([*rule.check(history)]))
            assert to_plain([*again.check(history)]) == alerts[-1]
    for i in range(0, len(steps), together):
        found = check_together(quick, history_together, steps[i : i + together])
        assert to_plain(found) == alerts[i : i + together]
        quick = resumed(quick)


@every_rule
@every_run
def test_a_rule_continues_from_its_state(kind: type[StepRule], run: str) -> None:
    steps = RUNS[run]
    for cut in {len(steps) // 2, 2 * len(steps) // 3 + 1}:
        first, history = kind(), history_of([])
        alerts = check_each(first, steps[:cut], history)
        resumed, restored = kind(), History(history.window)
        resumed.load_state_dict(first.state_dict())
        restored.load_state_dict(history.state_dict())
        assert getattr(resumed, "open_layers", None) == getattr(first, "open_layers", None)
        assert to_plain(alerts + check_each(resumed, steps[cut:], restored)) == to_plain(alerts_of(kind, run))


@every_rule
def test_state_is_plain_and_a_copy(kind: type[StepRule]) -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, (dict, list)):
            return [leaf for item in (value.values() if isinstance(value, dict) else value) for leaf in leaves(item)]
        return [value]

    rule = kind()
    check_each(rule, noisy(30))
    state = rule.state_dict()
    assert {type(leaf) for leaf in leaves(state)} <= {int, float, bool, str, np.ndarray}
    before = to_plain(state)
    check_each(rule, noisy(40))
    assert to_plain(state) == before


@every_rule
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("decay_steps", [np.inf, 25.0])
def test_healthy_training_raises_no_alert(kind: type[StepRule], scale: float, decay_steps: float) -> None:
    for seed in range(2):
        history, rule = history_of([]), kind()
        for step in healthy(scale, decay_steps, seed):
            history.append(step)
            assert list(rule.check(history)) == []


@every_rule
def test_frozen_and_late_layers_raise_no_alert(kind: type[StepRule]) -> None:
    run = [layers([None, 1.0, 0.0 if i < 5 else 1.0]) for i in range(200)]  # frozen, alive, zero-initialised branch
    assert check_each(kind(), run) == []


@every_rule
def test_a_new_run_starts_from_nothing(kind: type[StepRule]) -> None:
    rule = kind()
    run = HOSTILE["vanishing and recovering"]
    check_each(rule, run)
    assert to_plain(check_each(rule, run[:70])) == to_plain(check_each(kind(), run[:70]))


@every_rule
@pytest.mark.parametrize("value", [-1, 1.5, "2", True, None, {"*": 3}])
def test_steps_are_whole_numbers(kind: type[StepRule], value: Any) -> None:
    counts = {"patience", "recovery", "warmup", "window", "isolated_patience", "max_steps"}
    for argument in counts & set(vars(kind())):
        error = ValueError if type(value) in (int, float) else TypeError
        with pytest.raises(error, match=rf"^{kind.__name__}: {argument} must be a whole number from [012], got"):
            kind(**{argument: value})


@every_rule
@given(run=st.lists(st.lists(norms, min_size=3, max_size=3), max_size=30))
@settings(max_examples=30)
def test_any_numbers_at_all(kind: type[StepRule], run: list[list[float | None]]) -> None:
    steps = [layers(row) for row in run]
    alerts = check_each(eager(kind), steps)
    assert to_plain(eager(kind).check(history_of(steps))) == to_plain(alerts)


@pytest.mark.parametrize(
    ("run", "rule"),
    [
        ("one NaN", "nonfinite"),
        ("one inf", "nonfinite"),
        ("one spike", "spike"),
        ("explodes to inf", "exploding"),
        ("vanishing and recovering", "vanishing"),
        ("zero, alive, zero", "dead"),
    ],
)
def test_each_fault_is_found_by_its_own_rule(run: str, rule: str) -> None:
    found = {a.rule for r in rules.default() for a in check_each(r, HOSTILE[run]) if a.severity > Severity.INFO}
    assert rule in found
    assert found <= {rule} | ({"spike", "nonfinite"} if rule == "exploding" else set())


def test_default_rules_are_fresh_objects() -> None:
    one, other = rules.default(), rules.default()
    assert not set(map(id, one)) & set(map(id, other))


def test_a_pattern_that_matches_no_layer_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"Vanishing\(ratio=\.\.\.\): the pattern 'encodr\.\*' matches no layer.*encoder\.0"
    ):
        rules.check([rules.Vanishing(ratio={"encodr.*": 1e-5})], ("encoder.0", "head"))


def test_limits_out_of_order_are_refused() -> None:
    wrong = [rules.Vanishing(threshold={"head": 5.0}), rules.Exploding(threshold={"head": 2.0})]
    with pytest.raises(ValueError, match=r"Vanishing\(threshold=5\) must be below Exploding\(threshold=2\).*'head'"):
        rules.check(wrong, ("encoder.0", "head"))
    rules.check([wrong[0], rules.Spike(), rules.Dead()], ("encoder.0", "head"))


def test_a_rule_of_the_users_own_is_left_alone() -> None:
    class Mine:
        def check(self, history: History) -> list[Alert]:
            return []

    rules.check([Mine()], ("fc",))
    assert isinstance(Mine(), rules.Rule)


@every_rule
def test_calm_steps_are_passed_over(kind: type[StepRule]) -> None:
    """In a healthy run hardly any step is checked: of a rule with a baseline one in eight."""
    rule, history, checked = kind(), history_of([]), 0
    for step in (stats(i, step) for i, step in enumerate(noisy(160))):
        passed = rule.passes_over(history, Coming.of([step], history.count))
        history.append(step)
        assert passed or not rule.check(history)
        checked += not passed
    assert checked <= 160 / 8 + rules.Vanishing.warmup + EARLY
