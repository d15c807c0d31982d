"""When the Journal takes steps in: short ones together, the others at once, and in any case all of them."""

import copy
import gc
import subprocess
import sys
import textwrap
import threading
import weakref

import pytest
import torch
from torch import nn

import gradwatch as gw
from gradwatch import journal
from gradwatch.journal import SHORT, TOGETHER
from gradwatch.monitor import FIRST_STEPS
from tests.faults.processes import posix

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on by ``clock.step`` seconds whenever it is asked for."""

    class Clock:
        now, step = 0.0, SHORT / 10

        def perf_counter(self) -> float:
            self.now += self.step
            return self.now

    monkeypatch.setattr(journal, "time", fake := Clock())
    return fake


class Patient(gw.sinks.Memory):
    """Remembers reports, and does not mind how late."""

    may_wait = True


class Run:
    """Two layers whose gradients have the norm that is asked for, watched with a sink that remembers."""

    def __init__(self, *sinks, **arguments) -> None:
        self.model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        self.memory = Patient()
        self.monitor = gw.Monitor(
            self.model, sinks=[self.memory, *sinks], histogram_every_n_steps=0, strict=True, **arguments
        )

    def steps(self, *norms: float) -> None:
        for norm in norms:
            for layer in self.model:
                layer.weight.grad = torch.tensor([[norm, 0.0], [0.0, 0.0]])
            self.monitor.step()

    def first_steps(self) -> None:
        self.steps(*[1.0] * FIRST_STEPS)

    @property
    def written(self) -> list[int]:
        return [report.stats.step for report in self.memory.reports]


@pytest.fixture
def run(clock):
    started = Run()
    started.first_steps()
    return started


def test_the_first_steps_are_taken_in_one_by_one(clock):
    run = Run()
    for step in range(FIRST_STEPS):
        run.steps(1.0)
        assert run.written == list(range(step + 1))


def test_short_steps_wait_for_each_other(run):
    for n in range(1, 2 * TOGETHER + 1):
        run.steps(1.0)
        assert len(run.written) == FIRST_STEPS + n // TOGETHER * TOGETHER
    assert run.written == list(range(FIRST_STEPS + 2 * TOGETHER))


def test_a_sink_that_does_not_wait_gets_each_at_once(clock):
    run = Run(gw.sinks.Memory())
    run.steps(*[1.0] * (FIRST_STEPS + 3))
    assert len(run.written) == FIRST_STEPS + 3


@pytest.mark.parametrize("kind", ["Console", "JSONL", "TensorBoard"])
def test_own_sinks_wait(clock, kind, tmp_path):
    run = Run(gw.sinks.Console() if kind == "Console" else getattr(gw.sinks, kind)(tmp_path / "run"))
    run.steps(*[1.0] * (FIRST_STEPS + 3))
    assert len(run.written) == FIRST_STEPS
    run.monitor.close()
    assert len(run.written) == FIRST_STEPS + 3


def test_a_long_step_takes_in_those_that_wait(run, clock):
    run.steps(1.0, 1.0)
    assert len(run.written) == FIRST_STEPS
    clock.step = 1.01 * SHORT
    for n in (3, 4):
        run.steps(1.0)
        assert len(run.written) == FIRST_STEPS + n


@pytest.mark.parametrize(
    ("norm", "waits"),
    [(1.0, True), (2.9, True), (0.4, True), (3.1, False), (0.3, False), (0.0, False), (NAN, False), (INF, False)],
)
def test_a_step_unlike_the_last_is_taken_in_at_once(run, norm, waits):
    run.steps(1.0, norm)
    assert len(run.written) == FIRST_STEPS + 2 * (not waits)


def test_so_is_the_one_after_it(run):
    run.steps(NAN, 1.0)
    assert len(run.written) == FIRST_STEPS + 2
    run.steps(1.0)
    assert len(run.written) == FIRST_STEPS + 2


def test_so_is_what_was_looked_at_closely(clock):
    run = Run()
    run.monitor._histogram_every_n_steps = 20
    run.first_steps()
    run.steps(*[1.0] * 4)
    assert len(run.written) == FIRST_STEPS
    run.steps(1.0)  # step 20
    assert len(run.written) == FIRST_STEPS + 5


def test_so_is_what_was_probed(run):
    run.monitor.probe()
    run.model.zero_grad()
    run.model(torch.ones(1, 2)).sum().backward()
    run.monitor.step()
    assert run.memory.reports[-1].profile is not None


@pytest.mark.parametrize(
    "look",
    [
        lambda monitor: len(monitor.history),
        lambda monitor: monitor.history.latest.step + 1,
        lambda monitor: int(monitor.report().verdict.split()[1]),
        lambda monitor: monitor.state_dict()["history"]["count"],
        lambda monitor: monitor.flush() or len(monitor.history),
        lambda monitor: monitor.close() or len(monitor.history),
    ],
)
def test_who_looks_sees_every_step(run, look):
    run.steps(1.0, 1.0, 1.0)
    assert look(run.monitor) == len(run.written) == FIRST_STEPS + 3


def test_who_looks_sees_every_alert(clock):
    class Third:
        def check(self, history):
            if history.count % 3 == 0 and history.count > FIRST_STEPS:
                step = history.latest.step
                yield gw.Alert(step, "third", None, gw.Severity.WARNING, 0.0, 0.0, f"step {step}")

    run = Run(rules=[Third()])
    run.first_steps()
    run.steps(1.0, 1.0)
    assert [alert.step for alert in run.monitor.alerts] == [17]


def test_a_state_is_loaded_after_what_waits(run):
    state = run.monitor.state_dict()
    run.steps(1.0, 1.0)
    run.monitor.load_state_dict(state)
    run.steps(1.0)
    assert run.monitor.history.steps.tolist() == list(range(FIRST_STEPS + 1))


def test_alerts_and_reports_are_those_of_steps_taken_in_one_by_one(clock, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    norms = torch.randn(200, generator=generator).mul(0.3).exp()
    norms[120] *= 1000
    norms[170] = NAN
    found = {}
    for together in (1, TOGETHER):
        monkeypatch.setattr(journal, "TOGETHER", together)
        run = Run()
        run.steps(*norms.tolist())
        run.monitor.close()
        found[together] = [
            (r.stats.step, str(r.stats.total_norm), r.verdict, str(r.alerts)) for r in run.memory.reports
        ]
    assert found[1] == found[TOGETHER]
    assert {alert.rule for alert in run.monitor.alerts} == {"spike", "nonfinite", "stalled"}


def test_a_monitor_that_nobody_closes_loses_nothing(run):
    run.steps(1.0, 1.0)
    run.monitor = None
    gc.collect()
    assert len(run.written) == FIRST_STEPS + 2


def test_a_program_that_ends_loses_nothing(tmp_path):
    program = """
        import sys, torch, gradwatch as gw
        model = torch.nn.Linear(2, 1)
        monitor = gw.Monitor(model, sinks=[gw.sinks.JSONL(sys.argv[1])])
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        for _ in range(20):
            monitor.step()
        raise SystemExit("as when an error ends it")
    """
    file = tmp_path / "steps.jsonl"
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(file)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.strip()) == (1, "as when an error ends it")
    assert sum('"step"' in line for line in file.read_text().splitlines()) == 20


def test_a_monitor_that_its_own_sink_refers_to_is_let_go(clock):
    class Trainer:
        def __init__(self) -> None:
            self.model = nn.Linear(2, 1)
            self.monitor = gw.Monitor(self.model, sinks=[gw.sinks.Callback(self.told)])

        def told(self, report) -> None:
            """What a trainer does with it."""

    trainer = Trainer()
    trainer.monitor.step()
    gone = weakref.ref(trainer)
    del trainer
    gc.collect()
    assert gone() is None


def test_a_sink_that_looks_back_changes_no_order(clock):
    class Curious(Patient):
        monitor = None

        def write(self, report) -> None:
            super().write(report)
            self.seen = len(self.monitor.history), len(self.monitor.alerts)

    curious = Curious()
    run = Run()
    run.monitor._journal.sinks.insert(0, curious)
    curious.monitor = run.monitor
    run.steps(*[1.0] * (FIRST_STEPS + TOGETHER))
    assert run.written == list(range(FIRST_STEPS + TOGETHER))
    assert curious.seen == (FIRST_STEPS + TOGETHER, 0)


def test_a_copy_of_a_model_that_holds_its_monitor_goes_on_by_itself(run):
    run.steps(1.0, 1.0)
    run.model.monitor = run.monitor
    copied = copy.deepcopy(run.model)
    copied.monitor.step()
    assert len(run.written) == FIRST_STEPS
    assert len(run.monitor.history) == FIRST_STEPS + 2
    assert len(copied.monitor.history) == FIRST_STEPS + 1


def test_another_thread_may_look():
    run, done = Run(), threading.Event()

    def look() -> None:
        while not done.is_set():
            len(run.monitor.history)

    thread = threading.Thread(target=look)
    thread.start()
    run.steps(*[1.0] * 500)
    done.set()
    thread.join()
    run.monitor.close()
    assert run.written == list(range(500))
    assert run.monitor.history.steps.tolist() == list(range(500))


def test_what_a_sink_raises_leaves_nothing_behind(clock):
    class Full(Patient):
        def write(self, report) -> None:
            if report.stats.step == FIRST_STEPS + 1:
                raise OSError("disk full")
            super().write(report)

    run = Run(Full())
    run.steps(*[1.0] * (FIRST_STEPS + 4))
    run.monitor.probe()
    with pytest.raises(OSError, match="disk full"):
        run.monitor.close()
    assert run.written == list(range(FIRST_STEPS + 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in run.model.modules())


@posix
def test_a_process_of_its_own_loses_nothing_either(tmp_path):
    program = """
        import multiprocessing, sys, torch, gradwatch as gw
        def train(path):
            model = torch.nn.Linear(2, 1)
            monitor = gw.Monitor(model, sinks=[gw.sinks.JSONL(path)])
            for p in model.parameters():
                p.grad = torch.ones_like(p)
            for _ in range(20):
                monitor.step()
            globals()["kept"] = monitor
        train(sys.argv[1])
        child = multiprocessing.get_context("fork").Process(target=train, args=(sys.argv[2],))
        child.start()
        child.join()
    """
    files = [tmp_path / "parent", tmp_path / "child"]
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), *map(str, files)], check=True)
    assert [len(file.read_text().splitlines()) for file in files] == [20, 20]


@posix
def test_a_fork_that_ends_leaves_what_waits_to_its_parent(tmp_path):
    program = """
        import os, sys, torch, gradwatch as gw
        class Told:
            def write(self, report):
                with open(sys.argv[1], "a") as file:
                    print(report.stats.step, os.getpid() == trains, file=file)
            def close(self):
                pass
            may_wait = True
        trains = os.getpid()
        model = torch.nn.Linear(2, 1)
        monitor = gw.Monitor(model, sinks=[Told()])
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        for _ in range(18):
            monitor.step()
        if child := os.fork():
            os.waitpid(child, 0)
    """
    file = tmp_path / "told"
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(file)], check=True)
    assert file.read_text().splitlines() == [f"{step} True" for step in range(18)]


def test_what_the_history_forgets_was_explained_in_time(tmp_path):
    """A run that goes on for longer than the history lasts tells the same causes as when it was found."""

    def train(monitor, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            monitor.step()
            optimizer.step()

    torch.manual_seed(0)
    x, model = (
        torch.randn(16, 8),
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)
    monitor = gw.Monitor(model, sinks=(), strict=True)
    train(monitor, 100)
    early = monitor.report()
    assert early.diagnoses
    train(monitor, 300)
    file = tmp_path / "state.pt"
    torch.save(monitor.state_dict(), file)
    resumed = gw.Monitor(model, sinks=(), strict=True)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for late in (monitor, resumed):
        train(late, 900)
        assert [d.cause for d in late.report().diagnoses] == [d.cause for d in early.diagnoses]
        assert late.report().diagnoses[0].evidence == early.diagnoses[0].evidence


def test_causes_are_told_once_each_and_the_surest_first():
    found = [gw.Diagnosis("a", 0.3, (), (), ""), gw.Diagnosis("b", 0.5, (), (), ""), gw.Diagnosis("a", 0.9, (), (), "")]
    assert journal._by_confidence(found) == (found[2], found[1])


def test_what_is_told_within_steps_taken_in_together_is_told_at_its_step(clock):
    """Each report says what was known at its step, as where each step is taken in by itself."""
    norms = [1.0] * 30 + [2.0, 1.0, 0.0, 0.0, 2.0, *[0.0] * 7] + [1.0] * 30 + [float("nan")] * 4 + [1.0] * 20

    def reports(*sinks):
        rules = [gw.rules.Dead(patience=2, isolated_patience=3, recovery=2), gw.rules.NonFinite(), gw.rules.Spike()]
        started = Run(*sinks, rules=rules)
        started.steps(*norms)
        started.monitor.close()
        told = [(r.stats.step, r.verdict, r.severity, [*map(str, r.alerts)]) for r in started.memory.reports]
        return [told, started.monitor._journal.history.count]

    together, one_by_one = reports(), reports(gw.sinks.Memory())
    assert together == one_by_one
    assert len({verdict.partition(":")[0] for _, verdict, *_ in together[0]}) > 3
