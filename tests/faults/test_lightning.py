"""Lightning's Trainer is ended by signals, and resumes from its checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.faults.processes import posix, started
from tests.faults.training import KINDS, OWN, Training, assert_readable, unwatched, warned

pl = pytest.importorskip("pytorch_lightning")

from gradwatch.integrations.lightning import GradientMonitor  # noqa: E402

pytestmark = posix

STEPS = 20


class Module(pl.LightningModule):  # type: ignore[misc, name-defined]
    """The training of these tests as Lightning runs it; ``before(step)`` is called before each step."""

    def __init__(self, before: Callable[[int], object]) -> None:
        super().__init__()
        self.before, self.training_of = before, Training()
        self.model = self.training_of.model

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.before(self.global_step)
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(self.global_step))
        return (self.model(x) - x.sum(dim=1, keepdim=True)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.training_of.optimizer

    def train_dataloader(self) -> torch.Tensor:
        return torch.zeros(STEPS, 1)


def watching(directory: Path) -> GradientMonitor:
    return GradientMonitor(sinks=[KINDS[kind].sink(directory / kind) for kind in OWN])


def fit(
    directory: Path, callback: GradientMonitor, before: Callable[[int], object], resume: Path | None = None
) -> Module:
    every_fifth = pl.callbacks.ModelCheckpoint(
        directory / "checkpoints", every_n_train_steps=5, save_top_k=-1, filename="{step}"
    )
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback, every_fifth],
    )
    trainer.fit(module := Module(before), ckpt_path=resume)
    return module


@pytest.fixture
def handlers() -> Iterator[None]:
    """Lightning leaves its handlers of signals behind when a signal ends it."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_a_fit_is_ended_by_a_signal(how: signal.Signals, tmp_path: Path) -> None:
    def at_seven(step: int) -> None:
        if step == 7:
            signal.raise_signal(how)

    callback = watching(tmp_path)
    with pytest.raises((pl.utilities.exceptions.SIGTERMException, SystemExit)):
        fit(tmp_path, callback, at_seven)
    assert callback.monitor.closed
    for kind in OWN:  # after SIGTERM, Lightning ends the step that it is in
        assert_readable(kind, tmp_path / kind, range(8 if how == signal.SIGTERM else 7))


def fit_and_wait(send: Callable[[int], None], directory: Path) -> None:
    def tell(step: int) -> None:
        send(step)
        if step == 13:
            signal.pause()

    fit(directory, watching(directory), tell)


@pytest.mark.slow
def test_a_killed_fit_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    with started(fit_and_wait, tmp_path) as child:
        while child.get() < 13:
            pass
        child.process.kill()
        assert child.exit_code() == -signal.SIGKILL
    for kind in OWN:
        assert_readable(kind, tmp_path / kind, range(13))
    with warned(messages := []):
        last = tmp_path / "checkpoints" / "step=10.ckpt"
        module = fit(tmp_path, watching(tmp_path), lambda step: None, resume=last)
    assert not [message for message in messages if message.startswith("GradwatchWarning")]
    module.training_of.optimizer = module.trainer.optimizers[0]
    assert module.training_of.state() == unwatched(STEPS)
    for kind in OWN:
        assert_readable(kind, tmp_path / kind, [*range(13), *range(10, STEPS)])
