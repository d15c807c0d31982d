"""The audit of clipping, against counts by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradwatch as gw
from gradwatch import tags
from gradwatch.clip_log import ENOUGH, FEW, ClipLog
from gradwatch.history import History
from gradwatch.records import ClipRecord
from gradwatch.sinks import numbers

NAN, INF = float("nan"), float("inf")
HISTORY = History.from_grad_norms(fc=[1.0])


def clipped_at(limit: float, norm: float, policy: str = "global_norm", **more) -> ClipRecord:
    """What GlobalNorm would record of a total norm."""
    factor = limit / norm if limit < norm < INF else 1.0
    return ClipRecord(policy, norm, norm * factor, factor, limit, **{"clipped": float(factor < 1), **more})


def fed(norms, limit: float = 1.0, **more) -> ClipLog:
    log = ClipLog()
    for norm in norms:
        log.take(clipped_at(limit, norm, **more))
    return log


def said(log: ClipLog) -> str:
    (summary,) = log.summaries()
    return summary.message


class TestRates:
    @settings(max_examples=50, deadline=None)
    @given(
        norms=st.lists(st.one_of(st.floats(0.01, 100), st.sampled_from([NAN, INF, 0.0])), max_size=60),
        window=st.integers(1, 20),
    )
    def test_the_rate_is_that_of_the_last_steps(self, norms, window):
        log = ClipLog(window)
        beyond = []
        for norm in norms:
            beyond.append(1 < norm < INF)
            assert log.take(clipped_at(1.0, norm)).rate == pytest.approx(np.mean(beyond[-window:]))

    def test_of_steps_of_which_it_is_not_known_there_is_no_rate(self):
        log = ClipLog(window=3)
        unknown = ClipRecord("value", 2.0, NAN, NAN, 1.0)
        rates = [log.take(record).rate for record in (unknown, *[clipped_at(1.0, 2.0)] * 4)]
        np.testing.assert_equal(rates, [NAN, NAN, NAN, 1.0, 1.0])

    def test_a_record_is_given_back_with_the_rates_of_all_its_parts(self):
        log = ClipLog()
        for step in range(4):
            inner = (clipped_at(1.0, 2.0, group="a"), clipped_at(1.0, 0.5 + step, group="b"))
            outer = ClipRecord("per_group", 2.0, 1.0, NAN, NAN, clipped=0.5, parts=inner)
            record = log.take(ClipRecord("chain", 2.0, 1.0, NAN, NAN, clipped=0.5, parts=(outer, clipped_at(1.0, 0.5))))
        assert record.rate == 1.0
        assert [part.rate for part in record.parts] == [1.0, 0.0]
        assert [part.rate for part in record.parts[0].parts] == [1.0, 0.75]

    @pytest.mark.parametrize(
        ("record", "rate"),
        [
            (ClipRecord("mine", 2.0, 1.0, 0.5, 1.0), 1.0),
            (ClipRecord("mine", 2.0, 2.0, 1.0, 5.0), 0.0),
            (ClipRecord("mine", 2.0, 1.0, NAN, 1.0), NAN),
            (ClipRecord("value", 2.0, NAN, NAN, 1.0, clipped=0.001), 1.0),
            (ClipRecord("skip_spike", 2.0, 0.0, 0.0, 1.0, clipped=1.0), 1.0),
        ],
    )
    def test_of_a_policy_that_does_not_tell_the_factor_does(self, record, rate):
        np.testing.assert_equal(ClipLog().take(record).rate, rate)

    def test_two_of_one_policy_are_two(self):
        chain = ClipRecord("chain", 2.0, 1.0, NAN, NAN, parts=(clipped_at(1.0, 2.0), clipped_at(1.0, 0.5)))
        assert [part.rate for part in ClipLog().take(chain).parts] == [1.0, 0.0]

    def test_without_a_policy_there_is_nothing(self):
        log = ClipLog()
        assert log.take(None) is None
        assert log.summaries() == ()
        assert log.check(HISTORY) == []


class TestSummaries:
    def test_few_steps_have_none(self):
        assert fed([2.0] * (FEW - 1)).summaries() == ()
        assert len(fed([2.0] * FEW).summaries()) == 1

    def test_numbers_by_hand(self):
        (summary,) = fed([0.5] * 30 + [4.0] * 10 + [NAN, INF, 0.0]).summaries()
        assert (summary.policy, summary.part, summary.steps, summary.threshold) == ("global_norm", "", 43, 1.0)
        assert summary.rate == summary.share == pytest.approx(10 / 43)
        assert summary.median_norm == 0.5  # what is not finite or zero says nothing of the norms

    def test_parts_follow_the_whole_by_their_names(self):
        log = ClipLog()
        for _ in range(30):
            parts = (clipped_at(1.0, 2.0, group="encoder.*"), clipped_at(1.0, 0.5, group="head"))
            log.take(ClipRecord("per_group", 2.1, 1.1, NAN, NAN, clipped=0.5, parts=parts))
        whole, encoder, head = log.summaries()
        assert [s.part for s in (whole, encoder, head)] == ["", "encoder.*", "head"]
        assert (whole.rate, whole.share, encoder.rate, head.rate) == (1.0, 0.5, 1.0, 0.0)
        assert whole.message == "clipped 100% of 30 steps, 50% of the groups"
        assert head.message == "head: clipped none of 30 steps: max_norm 1 is 2 times their largest norm 0.5"

    def test_what_is_gone_is_not_said(self):
        log = fed([2.0] * 30)
        log.take(clipped_at(1.0, 2.0, policy="zclip", group=""))
        log.take(None)
        assert log.summaries() == ()

    def test_advice_is_a_limit_that_would_clip_what_it_says(self):
        norms = np.exp(np.random.default_rng(0).normal(0, 0.5, 1000))
        text = said(fed(norms, limit=0.1))
        ratio, median = 0.1 / np.median(norms), np.median(norms)
        assert f": max_norm 0.1 is {ratio:.2g} times their median norm {median:.2g}, so it acts as a smaller" in text
        advised, share = text.partition(", with SGD at")[0].partition("; max_norm ")[2].split(" would clip ")
        assert float(share.removesuffix("%")) / 100 == pytest.approx(np.mean(norms > float(advised)), abs=0.002)
        assert np.mean(norms > float(advised)) == pytest.approx(0.01, abs=0.005)

    @pytest.mark.parametrize("spike", [1e2, 1e6, 1e300])
    def test_spikes_do_not_raise_what_is_advised(self, spike):
        norms = np.exp(np.random.default_rng(0).normal(0, 0.1, 1000))
        norms[::30] *= spike
        advised = float(said(fed(norms, limit=0.1)).partition("; max_norm ")[2].split(" ")[0])
        assert 2.5 < advised < 3.5

    @pytest.mark.parametrize(
        ("norms", "limit", "words"),
        [
            ([2.0] * 30, 100.0, "clipped none of 30 steps: max_norm 100 is 50 times their largest norm 2"),
            ([2.0] * 195 + [9.0] * 5, 3.0, "clipped 2% of 200 steps: max_norm 3 is 1.5 times their median norm 2"),
            (
                [2.0] * 40 + [9.0] * 60,
                3.0,
                "clipped 60% of 100 steps: max_norm 3 is 0.33 times their median norm 9; max_norm 9 would clip 0%",
            ),
            ([2.0] * 15 + [9.0] * 25, 3.0, "clipped 62% of 40 steps: max_norm 3 is 0.33 times their median norm 9"),
            ([NAN] * 30, 3.0, "clipped none of 30 steps"),
        ],
    )
    def test_words(self, norms, limit, words):
        assert said(fed(norms, limit)) == words

    @pytest.mark.parametrize("policy", ["autoclip", "zclip", "spike_clip", "global_norm_inf", "mine"])
    def test_a_limit_that_nobody_set_for_the_l2_norm_gets_no_advice(self, policy):
        assert said(fed([2.0] * 200, policy=policy)) == "clipped 100% of 200 steps"

    def test_a_policy_that_skips_says_so(self):
        assert said(fed([0.5] * 199 + [2.0], policy="skip_spike")) == "skipped 0.5% of 200 steps"

    def test_what_is_not_known_is_not_made_up(self):
        log = ClipLog()
        for _ in range(30):
            log.take(ClipRecord("value", 2.0, NAN, NAN, 1.0))
        assert said(log) == "clipped an unknown share of 30 steps"


class TestAlerts:
    def alerts(self, log: ClipLog, norms, limit: float = 1.0) -> list[tuple[int, str]]:
        found = []
        for i, norm in enumerate(norms):
            log.take(clipped_at(limit, norm))
            found += [(i, alert.message) for alert in log.check(HISTORY)]
        return found

    def test_a_limit_that_nearly_every_step_is_clipped_by_is_told_once(self):
        ((step, message),) = self.alerts(ClipLog(), [10.0] * 500)
        assert step == ENOUGH - 1
        assert message == (
            "clipped 100% of 100 steps: max_norm 1 is 0.1 times their median norm 10, so it acts as a smaller learning "
            "rate and not against spikes; max_norm 10 would clip 0%, with SGD at 0.1 times the learning rate for steps "
            "as large as now"
        )

    def test_and_again_after_it_was_seldom(self):
        log = ClipLog(window=100)
        told = [step for step, _ in self.alerts(log, [10.0] * 150 + [0.5] * 100 + [10.0] * 150)]
        assert told == [99, 339]

    def test_what_is_normal_is_not_told(self):
        assert self.alerts(ClipLog(), ([0.5] * 8 + [10.0] * 2) * 50) == []

    def test_it_is_info_and_leaves_the_run_healthy(self):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        memory = gw.sinks.Memory()
        monitor = gw.Monitor(model, clip=gw.clipping.GlobalNorm(1e-3), sinks=[memory], strict=True, rules=())
        for _ in range(150):
            model.zero_grad()
            model(torch.randn(8, 4)).add(1).square().mean().backward()
            monitor.step()
        (alert,) = monitor.alerts
        assert (alert.rule, alert.layer, alert.severity, alert.step) == ("clip_limit", None, gw.Severity.INFO, 99)
        assert alert.message.startswith("clipped 100% of 100 steps: max_norm 0.001 is 0.000")
        report = monitor.report()
        assert report.verdict == "healthy: 150 steps, 1 layer, no alert"
        assert str(report).splitlines()[1].startswith("Clipping  clipped 100% of 150 steps: max_norm 0.001 is 0.000")
        assert report.to_dict()["clipping"][0]["rate"] == 1.0
        assert [r.clip.rate for r in memory.reports] == [1.0] * 150

    def test_who_clips_by_himself_gets_no_advice(self):
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with gw.watch(model, optimizer, sinks=()) as monitor:
            for _ in range(150):
                optimizer.zero_grad()
                model(torch.randn(8, 4)).add(1).square().mean().backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
                optimizer.step()
        assert monitor.report().clipping == ()
        assert all("max_norm" not in alert.message.partition(";")[0] for alert in monitor.alerts)


class TestState:
    @settings(max_examples=30, deadline=None)
    @given(norms=st.lists(st.floats(0.1, 10), min_size=1, max_size=300), data=st.data())
    def test_resumed_is_as_uninterrupted(self, norms, data):
        cut = data.draw(st.integers(0, len(norms)))
        whole, first, second = ClipLog(200), ClipLog(200), ClipLog(200)

        def run(log, norms):
            return [(log.take(clipped_at(1.0, n)).rate, len(log.check(HISTORY))) for n in norms]

        expected = run(whole, norms)
        before = run(first, norms[:cut])
        state = first.state_dict()
        run(first, [5.0])  # the state is no view of what lives on
        second.load_state_dict(state)
        assert before + run(second, norms[cut:]) == expected
        assert cut == len(norms) or second.summaries() == whole.summaries()

    def test_a_shorter_window_keeps_the_latest(self):
        log = ClipLog(10)
        log.load_state_dict(fed([9.0] * 50 + [0.5] * 10).state_dict())
        assert log.take(clipped_at(1.0, 9.0)).rate == 0.1


class TestWhereItGoes:
    def test_scalars(self):
        parts = (
            clipped_at(1.0, 2.0, group="encoder/0.*", rate=0.75),
            ClipRecord("zclip", 1.0, 1.0, 1.0, 1.0, rate=0.0),
        )
        record = ClipRecord("chain", 2.0, 1.0, 0.5, NAN, rate=0.5, parts=parts)
        found = numbers.aggregates(HISTORY.latest, record)
        assert {tag: value for tag, value in found.items() if "clip_rate" in tag} == {
            tags.CLIP_RATE: 0.5,
            "clip_rate/encoder|0.*": 0.75,
            "clip_rate/zclip": 0.0,
        }

    def test_an_unknown_rate_is_not_drawn(self):
        found = numbers.aggregates(HISTORY.latest, ClipRecord("value", 2.0, 1.0, 0.5, 1.0))
        assert not [tag for tag in found if "clip_rate" in tag]

    def test_a_line_of_jsonl(self, tmp_path):
        model = nn.Linear(2, 1)
        path = tmp_path / "g.jsonl"
        with gw.Monitor(model, clip=gw.clipping.PerGroup({"weight": 0.1, "*": 0.2}), sinks=[gw.sinks.JSONL(path)]) as m:
            model(torch.ones(1, 2)).sum().backward()
            m.step()
        assert '"rate": 1.0' in path.read_text()
        assert '"group": "weight"' in path.read_text()
