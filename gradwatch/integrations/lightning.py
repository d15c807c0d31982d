"""GradientMonitor: a Lightning callback that drives a Monitor, for ``pytorch_lightning`` and ``lightning.pytorch``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from gradwatch import sinks as gradwatch_sinks
from gradwatch.amp import scaling
from gradwatch.clipping.several import remembers
from gradwatch.faults import Faults
from gradwatch.layers import check_granularity
from gradwatch.monitor import Monitor, check_parts
from gradwatch.optimizers import parameters_of
from gradwatch.patterns import as_patterns, check_whole_number
from gradwatch.protocols import Cause, ClipPolicy, Rule, Sink
from gradwatch.records import AFTER_CLIPPING, BEFORE_CLIPPING, Report
from gradwatch.sinks import numbers
from gradwatch.told import Told


def _installed() -> Iterator[ModuleType]:
    """Lightning under either name: each has a Callback of its own, and its Trainer and CLI take no other."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        with suppress(ImportError):
            yield import_module(name)


_LIGHTNING = tuple(_installed())
if not _LIGHTNING:
    raise ImportError('gradwatch.integrations.lightning needs Lightning: pip install "gradwatch[lightning]"')


class GradientMonitor(*(package.Callback for package in _LIGHTNING)):  # type: ignore[misc]
    """Watches the gradients of a Lightning Trainer: before clipping, after accumulation and unscaling.

    Every step of every optimizer is one record, numbered by ``trainer.global_step`` and made of that optimizer's own
    parameters. :attr:`monitor` is the Monitor of the current fit, or of the last one; each fit starts a new one, which
    continues where a checkpoint left off when the fit resumes from it.

    An optimizer that Lightning does not know of, or ``self.optimizers(use_pl_optimizer=False)``, is not seen. With
    manual optimization the gradients are seen when the optimizer's ``step()`` is called, so after your own clipping.

    Args:
        rules: see :class:`gradwatch.Monitor`, as the rest.
        clip: clips in place of ``Trainer(gradient_clip_val=...)``.
        sinks: the Console and the Trainer's own loggers by default: a TensorBoardLogger gets everything, another
            logger a dict of numbers every ``log_every_n_steps``. They are written by the process of global rank zero.

    Raises:
        TypeError: when an argument has the wrong type.
        ValueError: when an argument is out of range; when a fit starts, also for a pattern that matches no layer, and
            for ``clip`` together with the Trainer's or the module's own clipping, with DeepSpeed, or for one with a
            memory where several optimizers take turns.

    Example:
        >>> from pytorch_lightning import LightningModule, Trainer
        >>> class Regression(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc = torch.nn.Linear(3, 1)
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         return self.fc(batch).square().mean()
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> callback = GradientMonitor()
        >>> trainer = Trainer(barebones=True, max_epochs=1, accelerator="cpu", callbacks=[callback])
        >>> trainer.fit(Regression(), torch.ones(5, 8, 3))  # 5 batches of 8
        >>> print(callback.monitor.report())
        Verdict   healthy: 5 steps, 1 layer, no alert
    """

    def __init__(
        self,
        *,
        rules: Iterable[Rule] | None = None,
        clip: ClipPolicy | None = None,
        sinks: Iterable[Sink] | None = None,
        every_n_steps: int = 1,
        histogram_every_n_steps: int = 100,
        probe_every_n_steps: int = 0,
        granularity: str = "layer",
        include: str | Iterable[str] | None = None,
        exclude: str | Iterable[str] | None = None,
        diagnose: bool | Iterable[Cause] = True,
        strict: bool = False,
    ) -> None:
        check_whole_number("every_n_steps", every_n_steps, at_least=1)
        check_whole_number("histogram_every_n_steps", histogram_every_n_steps, at_least=0)
        check_whole_number("probe_every_n_steps", probe_every_n_steps, at_least=0)
        check_granularity(granularity)
        self._sinks = None if sinks is None else check_parts("sinks", sinks, "write", "close")
        self._settings: dict[str, Any] = {
            "rules": None if rules is None else check_parts("rules", rules, "check"),
            "clip": None if clip is None else check_parts("clip", [clip], "clip_")[0],
            "every_n_steps": every_n_steps,
            "histogram_every_n_steps": histogram_every_n_steps,
            "probe_every_n_steps": probe_every_n_steps,
            "granularity": granularity,
            "include": as_patterns("include", include),
            "exclude": as_patterns("exclude", exclude),
            "diagnose": diagnose if isinstance(diagnose, bool) else check_parts("diagnose", diagnose, "explain"),
            "strict": strict,
        }
        # An address in a repr would be another one in the process that resumes.
        self._state_key = re.sub(r" at 0x\w+", "", self._generate_state_key(**self._settings))
        self._faults = Faults(strict)
        self._last_step: int | None = None
        self._unused: dict[str, Any] | None = None
        """State of a monitor before its first fit: the rules and the clip policy are the same objects in every fit."""
        self._loaded: Mapping[str, Any] | None = None
        self.monitor: Monitor | None = None
        """The Monitor of the current or the last fit, None before the first."""

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the state: callbacks with different settings do not share it."""
        return self._state_key

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and self._settings["clip"] is not None:
            _refuse_to_clip_twice(self._settings["clip"], trainer, pl_module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._close()
        _refuse_to_mix(self._settings["clip"], trainer.optimizers)
        self._last_step = None
        sinks = self._sinks_of(trainer)
        self.monitor = Monitor(pl_module, sinks=sinks, **self._settings)
        self._unused = self._unused or self.monitor.state_dict()
        self.monitor.load_state_dict(self._unused)
        loaded, self._loaded = self._loaded, None
        if loaded:
            self.load_state_dict(loaded)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        part, consequence = "GradientMonitor", "this step is not recorded"
        self._faults.run(part, consequence, self._observe, trainer, pl_module, optimizer, otherwise=None)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with suppress(Exception):  # it would take the place of the error that Lightning is reporting
            self._close()
        self._let_go()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._loaded = None  # what validate() or test() read from a checkpoint is not for the next fit
        self._close()
        self._let_go()

    def state_dict(self) -> dict[str, Any]:
        """The monitor's state, which Lightning puts into its checkpoints."""
        if self.monitor is None:
            return dict(self._loaded or {})
        return self._faults.run("GradientMonitor's state", "it is not saved", self.monitor.state_dict, otherwise={})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, now or when the next fit starts."""
        if self.monitor is None or self.monitor.closed:
            self._loaded = state_dict
        else:
            part, consequence = "GradientMonitor's state", "it starts anew instead of from the checkpoint"
            self._faults.run(part, consequence, self._resume, self.monitor, state_dict, otherwise=None)

    def __getstate__(self) -> dict[str, Any]:
        """What copies and other processes get: the state, but not the monitor with its open sinks, nor the module."""
        kept = {name: value for name, value in self.__dict__.items() if name not in ("log", "log_dict")}
        return {**kept, "monitor": None, "_loaded": self.state_dict()}  # Lightning sets log to the module's own

    def _observe(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        if self.monitor is None:
            return
        step = trainer.global_step
        # LBFGS evaluates its closure several times a step, each time with new gradients.
        first, self._last_step = step != self._last_step, step
        self.monitor.observe(
            step,
            parameters=parameters_of(optimizer),
            record=first,
            scaling=scaling(getattr(trainer.precision_plugin, "scaler", None), optimizer),
            taking_turns=max(1, len(trainer.optimizers)),
            captured=BEFORE_CLIPPING if pl_module.automatic_optimization else AFTER_CLIPPING,
        )

    def _resume(self, monitor: Monitor, state: Mapping[str, Any]) -> None:
        try:
            monitor.load_state_dict(state)
        except Exception:
            monitor.load_state_dict(self._unused or {})
            raise

    def _sinks_of(self, trainer: Any) -> list[Sink]:
        if not trainer.is_global_zero:
            return [sink for sink in self._sinks or () if getattr(sink, "every_rank", False)]
        if self._sinks is not None:
            return self._sinks
        made = [
            self._faults.run(
                f"the sink of {type(logger).__name__}", "it gets nothing", _sink, logger, trainer, otherwise=None
            )
            for logger in trainer.loggers
        ]
        return [gradwatch_sinks.Console(), *(sink for sink in made if sink is not None)]

    def _let_go(self) -> None:
        """Lightning sets these to the module's own, which would keep the module alive as long as the callback."""
        for name in ("log", "log_dict"):
            self.__dict__.pop(name, None)

    def _close(self) -> None:
        if self.monitor is not None:
            self.monitor.close()


class LoggerNumbers:
    """Hands a logger of Lightning one dict of numbers, for all layers, at every n-th step.

    Args:
        logger: any logger with ``log_metrics(metrics, step)``.
        every_n_steps: write the first record in every n steps.
        optimizers: number of optimizers that take turns, whose records are written together.

    Example:
        >>> from gradwatch import History
        >>> class Printed:
        ...     def log_metrics(self, metrics, step):
        ...         print(step, metrics["gradients/total_norm"], metrics["grad_norm/fc"])
        >>> sink = LoggerNumbers(Printed(), every_n_steps=2)
        >>> history = History.from_grad_norms(fc=[1.0, 2.0, 3.0])
        >>> for count in (1, 2, 3):
        ...     sink.write(Report("healthy", severity=0, stats=history.up_to(count).latest))
        0 1.0 1.0
        2 3.0 3.0
    """

    def __init__(self, logger: Any, every_n_steps: int, optimizers: int = 1) -> None:
        self._logger = logger
        self._every_n_steps = every_n_steps
        self._optimizers = optimizers
        self._told = Told()
        self._turn = self._period = -1

    def write(self, report: Report) -> None:
        stats = report.stats
        if stats is None:
            return
        counts = numbers.counts(stats, report.alerts, self._told)
        turn = stats.step // self._optimizers
        period = turn // self._every_n_steps
        if period != self._period:
            self._turn, self._period = turn, period
        if turn == self._turn:
            metrics = numbers.aggregates(stats, report.clip) | counts
            metrics |= numbers.layer_norms(stats)
            self._logger.log_metrics(metrics, step=stats.step)

    def close(self) -> None:
        """Nothing to do: the Trainer finalizes its loggers."""


def _sink(logger: Any, trainer: Any) -> Sink | None:
    if any(isinstance(logger, package.loggers.TensorBoardLogger) for package in _LIGHTNING):
        return gradwatch_sinks.TensorBoard(logger.experiment)
    if trainer.log_every_n_steps:  # 0 switches the loggers off
        return LoggerNumbers(logger, trainer.log_every_n_steps, max(1, len(trainer.optimizers)))
    return None


def _refuse_to_mix(clip: ClipPolicy | None, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    if len(optimizers) > 1 and clip is not None and remembers(clip):
        raise ValueError(
            f"clip={clip!r}: {len(optimizers)} optimizers take turns, and their norms would be mixed in one memory; "
            f"give each its own, by the names that it updates: PerGroup({{'generator.*': {type(clip).__name__}(...), "
            "...})"
        )


def _refuse_to_clip_twice(clip: ClipPolicy, trainer: Any, pl_module: Any) -> None:
    if any(base.__name__ == "DeepSpeedStrategy" for base in type(trainer.strategy).__mro__):
        raise ValueError(
            f"clip={clip!r}: DeepSpeed keeps its gradients to itself and clips them itself: use "
            "Trainer(gradient_clip_val=...), which becomes gradient_clipping in its config"
        )
    if trainer.gradient_clip_val:
        raise ValueError(
            f"clip={clip!r}: the Trainer clips too, gradient_clip_val={trainer.gradient_clip_val!r}; "
            "remove one of the two"
        )
    own = type(pl_module).configure_gradient_clipping
    if all(own is not package.LightningModule.configure_gradient_clipping for package in _LIGHTNING):
        raise ValueError(
            f"clip={clip!r}: {type(pl_module).__name__} clips too, it overrides configure_gradient_clipping(); "
            "remove one of the two"
        )
