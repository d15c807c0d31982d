"""What the sink wrote, as tables."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import tags
from gradwatch.records import Alert, ClipRecord, Severity
from gradwatch.sinks.alert_blocks import AlertBlocks
from gradwatch.tensorboard_plugin import tables as module
from gradwatch.tensorboard_plugin.tables import Said, merged, read
from tests.event_logs import DEEP, PROFILE, VANISHING, event_files, layer_names, sampled, write

LAYERS = layer_names(3)
NORMS = np.arange(1.0, 31.0).reshape(10, 3)
SICK = {"verdict": "vanishing: a", "severity": Severity.ERROR, "alerts": (VANISHING,), "diagnoses": (DEEP,)}


def test_alerts_and_verdict_come_back(tmp_path: Path) -> None:
    late = replace(VANISHING, step=9, rule="nonfinite", layer=None, value=np.nan, layers=LAYERS, follows="vanishing")
    write(tmp_path, LAYERS, NORMS, said={7: SICK, 9: {**SICK, "alerts": (late,), "diagnoses": ()}})
    found = read(tmp_path)
    assert found.alerts[0] == VANISHING
    assert repr(found.alerts[1]) == repr(late)  # NaN is not equal to itself
    assert found.said == Said("vanishing: a", Severity.ERROR, "before clipping", (DEEP,))
    report = found.report
    assert (report.verdict, report.severity, report.diagnoses) == ("vanishing: a", Severity.ERROR, (DEEP,))
    assert str(report).splitlines()[1] == "Why       saturation (confidence 90%)"


@pytest.mark.parametrize("closed", [True, False])
def test_the_verdict_of_a_healthy_run_is_at_most_a_hundred_steps_old(closed: bool, tmp_path: Path) -> None:
    write(tmp_path, LAYERS[:1], np.ones((250, 1)), close=closed)
    assert read(tmp_path).said.verdict == f"healthy: {250 if closed else 201} steps"


def test_a_verdict_that_stays_is_not_written_again(tmp_path: Path) -> None:
    said = {step: {"verdict": "vanishing: a", "severity": Severity.ERROR} for step in range(1000)}
    write(tmp_path, LAYERS[:1], np.ones((1000, 1)), said=said)
    assert event_files(tmp_path)[0].read_bytes().count(b'{"began":') == 1


def test_causes_found_early_are_not_forgotten_and_those_found_again_are_renewed(tmp_path: Path) -> None:
    again = replace(DEEP, confidence=0.4)
    other = replace(DEEP, cause="learning_rate", confidence=0.6)
    said = {3: {**SICK, "diagnoses": (DEEP,)}, 5: {**SICK, "diagnoses": (other,)}, 8: {**SICK, "diagnoses": (again,)}}
    write(tmp_path, LAYERS, NORMS, said=said)
    assert read(tmp_path).said.diagnoses == (other, again)


def test_causes_found_before_a_run_was_resumed_are_not_forgotten_unless_taken_back(tmp_path: Path) -> None:
    other = replace(DEEP, cause="learning_rate", confidence=0.6)
    write(tmp_path, LAYERS, NORMS[:6], said={3: {**SICK, "diagnoses": (DEEP,)}})
    write(tmp_path, LAYERS, NORMS[5:8], steps=[5, 6, 7], said={5: {"diagnoses": (other,)}})
    assert read(tmp_path).said.diagnoses == (DEEP, other)
    write(tmp_path, LAYERS, NORMS[6:8], steps=[6, 7], said={6: {"diagnoses": (replace(DEEP, confidence=0.1),)}})
    assert read(tmp_path).said.diagnoses == (other, replace(DEEP, confidence=0.1))


def test_what_a_probe_has_told_better_does_not_come_back(tmp_path: Path) -> None:
    better = replace(DEEP, cause="large_weights")
    write(tmp_path, LAYERS, NORMS, said={3: {"diagnoses": (DEEP,)}, 4: {"diagnoses": (better,), "profile": PROFILE}})
    assert read(tmp_path).said.diagnoses == (better,)


def test_no_alert_of_many_is_lost_even_where_only_the_last_event_of_each_tag_is_kept(tmp_path: Path) -> None:
    said = {
        step: {"alerts": tuple(replace(VANISHING, step=step, layer=f"l{i}") for i in range(5))} for step in range(100)
    }
    write(tmp_path, LAYERS[:1], np.ones((100, 1)), said=said)
    events = module.RunEvents(tmp_path)
    blocks = {tag: s for tag, s in events.series.items() if tag.startswith(f"{tags.ALERT_LOG}/")}
    assert len(blocks) > 1
    assert all(len(text) <= 1.3 * AlertBlocks.MAX_BYTES for s in blocks.values() for text in s.texts)
    last = {
        tag: replace(s, steps=s.steps[-1:], written=s.written[-1:], texts=s.texts[-1:]) for tag, s in blocks.items()
    }
    found = module.tables({**events.series, **last}, events.histogram)
    assert [(alert.step, alert.layer) for alert in found.alerts] == [(s, f"l{i}") for s in range(100) for i in range(5)]


def test_sampled_statistics_come_back(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, sample_every=4)
    found = read(tmp_path).sampled
    for name in ("max_abs", "zero_fraction", "nonfinite", "param_norm", "update_ratio"):
        assert found[name].steps.tolist() == [0, 4, 8]
        np.testing.assert_allclose(found[name].values, [sampled(3, step)[name] for step in (0, 4, 8)], rtol=1e-6)


def test_what_was_clipped_comes_back_with_its_parts(tmp_path: Path) -> None:
    def record(step: int) -> ClipRecord:
        parts = (
            ClipRecord("value", 4.0, 3.0, np.nan, 0.5, clipped=0.25),
            ClipRecord("global_norm", 3.0, 1.0, 1 / 3, 1.0),
        )
        return ClipRecord("chain", 4.0 + step, 1.0, np.nan, np.inf, clipped=step % 2, parts=parts)

    records = {step: record(step) for step in range(10)}
    write(tmp_path, LAYERS, NORMS, clip=records)
    clips = read(tmp_path).clips
    assert clips is not None
    assert clips.of("norm_before").tolist() == [4.0 + step for step in range(10)]
    assert clips.of("threshold").tolist() == [np.inf] * 10
    found = clips.at(3)
    assert found is not None
    assert (found.policy, found.norm_before, found.clipped) == ("chain", 7.0, 1.0)
    assert [(part.policy, part.norm_after) for part in found.parts] == [("value", 3.0), ("global_norm", 1.0)]
    assert found.parts[1].coefficient == np.float32(1 / 3)
    assert clips.at(11) is None


def test_groups_that_are_clipped_keep_their_names(tmp_path: Path) -> None:
    parts = (
        ClipRecord("global_norm", 1.0, 1.0, 1.0, 2.0, "encoder.*"),
        ClipRecord("global_norm", 3.0, 2.0, 0.5, 2.0, "a b"),
    )
    write(tmp_path, LAYERS, NORMS[:1], clip={0: ClipRecord("per_group", 3.2, 2.2, np.nan, np.nan, parts=parts)})
    clip = read(tmp_path).report.clip
    assert clip is not None
    assert [(part.policy, part.group, part.norm_before) for part in clip.parts] == [
        ("global_norm", "encoder.*", 1.0),
        ("global_norm", "a b", 3.0),
    ]


def test_the_report_says_of_clipping_what_the_monitor_says(tmp_path: Path) -> None:
    records = {s: ClipRecord("global_norm", 2.0, 1.0 if s % 2 else 2.0, 0.5, 1.0, clipped=s % 2) for s in range(40)}
    write(tmp_path, LAYERS[:1], np.ones((40, 1)), clip=records)
    (summary,) = read(tmp_path).report.clipping
    assert summary.message.startswith("clipped 50% of 40 steps: max_norm 1 is 0.5 times their median norm 2")


def test_a_profile_comes_back(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, said={4: {"profile": PROFILE}})
    ((step, text),) = read(tmp_path).profiles
    assert step == 4
    assert b'"operation":"Sigmoid"' in text


def test_a_resumed_run_overrides_all_that_was_written_from_there_on(tmp_path: Path) -> None:
    clip = {step: ClipRecord("value", 1.0, 1.0, 1.0, 1.0) for step in range(10)}
    early = replace(VANISHING, step=2)
    said = {2: {**SICK, "alerts": (early,)}, 7: SICK, 8: {"profile": PROFILE}}
    write(tmp_path, LAYERS, NORMS, said=said, clip=clip, sample_every=3)
    assert read(tmp_path).alerts == (early, VANISHING)
    write(tmp_path, LAYERS, NORMS[:2] + 100, steps=[5, 6])
    found = read(tmp_path)
    assert found.norms.steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(np.concatenate(found.norms.parts), [*NORMS[:5], *(NORMS[:2] + 100)])
    np.testing.assert_allclose(found.norms.total[-1], np.linalg.norm(NORMS[1] + 100))
    assert found.alerts == (early,)
    assert found.said.verdict == "healthy: 7 steps"
    assert found.profiles == ()
    assert found.clips is not None
    assert found.clips.steps.tolist() == [0, 1, 2, 3, 4]
    assert found.sampled["max_abs"].steps.tolist() == [0, 3]
    assert found.histogram(LAYERS[0]).steps.tolist() == [0, 3]


def test_a_run_resumed_across_chunks_keeps_nothing_of_the_later_chunk(tmp_path: Path) -> None:
    steps = [*range(tags.CHUNK_STEPS - 3, tags.CHUNK_STEPS + 3)]
    write(tmp_path, LAYERS[:1], np.ones((6, 1)), steps=steps)
    write(tmp_path, LAYERS[:1], np.full((2, 1), 5.0), steps=steps[:2])
    assert read(tmp_path).norms.steps.tolist() == steps[:2]


def test_layers_that_come_and_go(tmp_path: Path) -> None:
    sink = write(tmp_path, ("a", "b"), [[1, 2], [3, 4]], close=False)
    sink.close()
    write(tmp_path, ("b", "c"), [[5, 6], [7, None]], steps=[2, 3], sample_every=2)
    found = read(tmp_path)
    assert found.norms.layers == ("a", "b", "c")
    none = tags.NO_GRADIENT
    np.testing.assert_array_equal(
        np.concatenate(found.norms.parts), [[1, 2, none], [3, 4, none], [none, 5, 6], [none, 7, none]]
    )
    np.testing.assert_allclose(found.norms.total, [np.sqrt(5), 5, np.sqrt(61), 7])
    np.testing.assert_array_equal(np.isnan(found.sampled["max_abs"].values), [[True, False, False]])


def test_steps_in_many_chunks_are_one_run(tmp_path: Path) -> None:
    steps = np.arange(0, 3 * tags.CHUNK_STEPS, 1000)
    write(tmp_path, LAYERS, np.outer(steps + 1.0, [1, 2, 3]), steps=steps.tolist())
    norms = read(tmp_path).norms
    assert norms.steps.tolist() == steps.tolist()
    assert len(norms.parts) == 3
    np.testing.assert_array_equal(norms.column(LAYERS[1], 2, 9), 2 * (steps[2:9] + 1.0))
    np.testing.assert_array_equal(norms.row(7), [7001, 14002, 21003])


@pytest.mark.parametrize(
    ("sets", "names"),
    [
        ([], ()),
        ([["a", "b"]], ("a", "b")),
        ([["b", "c"], ["a", "b"]], ("a", "b", "c")),
        ([["a", "d"], ["a", "b", "c", "d"]], ("a", "b", "c", "d")),
        ([["x"], ["a", "b"]], ("a", "b", "x")),
        ([["a", "b"], ["b", "a"]], ("a", "b")),
    ],
)
def test_names_are_merged_in_the_order_of_depth(sets: list[list[str]], names: tuple[str, ...]) -> None:
    assert merged(sets) == names


def test_a_log_of_before_verdicts_were_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, said={7: SICK}, sample_every=5)
    events = module.RunEvents(tmp_path)
    old = (tags.NORMS, tags.SAMPLED, tags.UPDATE_RATIO)
    series = {tag: s for tag, s in events.series.items() if tag.startswith(old)}
    found = module.tables(series, events.histogram)
    assert found.said == Said()
    assert str(found.report) == "Verdict   no verdict was recorded"
    assert (found.alerts, found.clips, found.profiles) == ((), None, ())
    assert found.sampled["max_abs"].steps.tolist() == [0, 5]


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense", b"{}", b"[3]", b'[{"step": "x"}]', b'[{"layer": null}]', b'["a"]', b"\xff"],
    ids=ascii,
)
def test_texts_that_are_not_as_we_write_them_are_passed_over(text: bytes, tmp_path: Path) -> None:
    write(tmp_path, LAYERS, NORMS, said={7: SICK})
    events = module.RunEvents(tmp_path)
    hostile = {tag: replace(s, texts=(text,) * len(s.texts)) if s.texts else s for tag, s in events.series.items()}
    found = module.tables(hostile, events.histogram)
    assert found.alerts == ()
    assert found.said == Said()


def test_files_are_read_in_the_order_in_which_they_were_begun_whatever_they_are_called(tmp_path: Path) -> None:
    for name, norm in (("first", 1.0), ("second", 2.0)):
        write(tmp_path / name, LAYERS[:1], [[norm]])
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(event_files(tmp_path / "first")[0], run / "z.tfevents")
    shutil.copy(event_files(tmp_path / "second")[0], run / "a.tfevents")
    assert read(run).norms.row(0).tolist() == [2.0]


@pytest.mark.parametrize("alert", [VANISHING, Alert(0, "x", None, Severity.INFO, np.inf, -np.inf, "")])
def test_an_alert_survives_the_way_there_and_back(alert: Alert, tmp_path: Path) -> None:
    write(tmp_path, LAYERS[:1], [[1.0]] * 10, said={alert.step: {"alerts": (alert,)}})
    assert read(tmp_path).alerts == (alert,)


def test_the_report_read_back_is_the_monitors_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*layers, nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clip = gw.clipping.Chain(gw.clipping.SkipNonFinite(), gw.clipping.GlobalNorm(0.5))
    with gw.watch(model, optimizer, clip=clip, sinks=[gw.sinks.TensorBoard(tmp_path)]) as monitor:
        for _ in range(40):
            optimizer.zero_grad()
            model(torch.randn(8, 16)).square().mean().backward()
            optimizer.step()
    found = read(tmp_path)
    assert str(found.report) == str(monitor.report())
    assert found.alerts == tuple(monitor.alerts)
    assert found.norms.layers == monitor.history.layers
    np.testing.assert_array_equal(np.concatenate(found.norms.parts), monitor.history.grad_norm.astype(np.float32))
    assert found.profiles
