"""apply(): what a diagnosis's remedy says, done to a program as it is written: its kind of change and its numbers.

What concerns weights, modules, the optimizer or the loop is done to the task that was built; what concerns the
architecture, the data or the precision is one of the recipe's settings, and the task is built with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.recipes import cnn, mlp, rnn, transformer
from benchmarks.detection.task import Program, Task
from gradwatch.records import Diagnosis

NUMBER = r"([-+.\de]*\d)"


class NotApplicableError(Exception):
    """The remedy says nothing that could be done to this program."""


@dataclass(frozen=True)
class Case:
    """A remedy that is to be applied: the words that matched, and what they are about."""

    program: Program
    layers: Sequence[str]
    numbers: Sequence[float]


Settings = Mapping[str, Any]


def apply(diagnosis: Diagnosis, program: Program, seed: int) -> Task:
    """The run of ``program`` with the remedy applied.

    Raises:
        NotApplicableError: when no part of it could be.
    """
    for pattern, settings, treat in REMEDIES:
        if found := re.search(pattern, diagnosis.remedy):
            case = Case(program, diagnosis.layers, [float(number) for number in found.groups()])
            task = program.build(seed, settings(case))
            with torch.no_grad():
                treat(task, case)
            return task
    raise NotApplicableError(f"{program.name}: {diagnosis.remedy}")


# --- done to the settings -------------------------------------------------------------------------------------------


def as_it_is(case: Case) -> Settings:
    return {}


def in_bfloat16(case: Case) -> Settings:
    return {"precision": "bfloat16", "scaler": None, "loss_scale": 1.0}


def standardised(case: Case) -> Settings:
    known = {"raw": False, "input_scale": 1.0, "feature_scale": 1.0}
    return {name: value for name, value in known.items() if name in case.program.settings}


def in_small_units(case: Case) -> Settings:
    if "target_scale" not in case.program.settings:
        raise NotApplicableError(f"{case.program.name} has targets of size 1")
    return {"target_scale": 1.0}


def with_skips(case: Case) -> Settings:
    if case.program.recipe is rnn:
        raise NotApplicableError(f"{case.program.name} has one layer, and nothing to lead around")
    return {"residual": True}


def normalised(case: Case) -> Settings:
    return {"norm": "pre" if case.program.recipe is transformer else "batch"}


def wider(case: Case) -> Settings:
    return {"channels" if case.program.recipe is cnn else "width": int(case.numbers[0])}


def smaller_branches(case: Case) -> Settings:
    return {"residual_scale": case.numbers[0] * case.program.settings.get("residual_scale", 1.0)}


def with_eps(case: Case) -> Settings:
    if "eps" not in case.program.settings:
        raise NotApplicableError(f"{case.program.name} has no operation that takes it")
    return {"eps": 1e-6}


def loss_of_logits(case: Case) -> Settings:
    if case.program.recipe is not mlp:
        raise NotApplicableError(f"{case.program.name} has no such loss")
    return {"loss": "cross_entropy"}


# --- done to the task -----------------------------------------------------------------------------------------------


def nothing(task: Task, case: Case) -> None:
    """The settings did it."""


def multiply_weights(task: Task, case: Case) -> None:
    for weight in _weights(task.model, case.layers):
        weight.mul_(case.numbers[0])


def draw_weights(task: Task, case: Case) -> None:
    for weight in _weights(task.model, case.layers):
        weight.normal_(0, math.sqrt(case.numbers[0] / weight[0].numel()))


def zero_biases(task: Task, case: Case) -> None:
    for name in case.layers:
        task.model.get_submodule(name).bias.zero_()


def unit_weights(task: Task, case: Case) -> None:
    for name in case.layers:
        task.model.get_submodule(name).weight.fill_(1)


def relu_with_he(task: Task, case: Case) -> None:
    _replace(task.model, nn.Sigmoid, nn.ReLU)
    for module in task.model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)


def leaky(task: Task, case: Case) -> None:
    _replace(task.model, nn.ReLU, nn.LeakyReLU)


def divide_lr(task: Task, case: Case) -> None:
    _schedule(task, lambda step: 1 / case.numbers[0])


def divide_first_lr(task: Task, case: Case) -> None:
    steps, divisor = case.numbers
    _schedule(task, lambda step: 1 / divisor if step < steps else 1.0)


def clip(task: Task, case: Case) -> None:
    before = task.before_step

    def unscale_and_clip(step: int) -> None:
        if before is not None:
            before(step)
        nn.utils.clip_grad_norm_(task.model.parameters(), case.numbers[0])

    task.before_step = unscale_and_clip


def multiply_recurrent(task: Task, case: Case) -> None:
    for weight, _ in _recurrent(task.model, case.layers):
        weight.mul_(case.numbers[0])


def open_gate(task: Task, case: Case) -> None:
    """With the number that is given, or log(T) of the sequences' T."""
    value = case.numbers[0] if case.numbers else math.log(_length(case.program))
    for name in case.layers:
        _open_gate(task.model.get_submodule(name), value)


def remember(task: Task, case: Case) -> None:
    """Of each kind of cell what the remedy says of it."""
    for name in case.layers:
        core = task.model.get_submodule(name)
        if isinstance(core, (nn.LSTM, nn.GRU)):
            _open_gate(core, math.log(_length(case.program)))
            continue
        for weight, is_relu in _recurrent(task.model, [name]):
            (nn.init.eye_ if is_relu else nn.init.orthogonal_)(weight)


REMEDIES: tuple[tuple[str, Callable[[Case], Settings], Callable[[Task, Case], None]], ...] = (
    (rf"^multiply the recurrent weights of .+? by {NUMBER}", as_it_is, multiply_recurrent),
    (rf"^start the bias of the \w+ gate of .+? at .* {NUMBER} here", as_it_is, open_gate),
    (r"^start the bias of the \w+ gate", as_it_is, open_gate),
    (r"^start the recurrent weights", as_it_is, remember),
    (rf"^multiply the initial weights of .+? by {NUMBER}", as_it_is, multiply_weights),
    (rf"^draw the initial weights of .+ deviation sqrt\({NUMBER} / fan_in\)", as_it_is, draw_weights),
    (rf"^multiply the output of each residual branch in .+? by {NUMBER}", smaller_branches, nothing),
    (r"^start the weights of .+ at 1", as_it_is, unit_weights),
    (r"^set the initial biases of .+ to 0", as_it_is, zero_biases),
    (r"^replace Sigmoid by ReLU with He initialisation", as_it_is, relu_with_he),
    (r"^replace the ReLUs.* by LeakyReLU", as_it_is, leaky),
    (r"^add skip connections|; a skip connection around it", with_skips, nothing),
    (r"^(?:normalise the inputs of these activations|put a normalisation before|bring what)", normalised, nothing),
    (rf"^widen .+ from \d+ to {NUMBER} units", wider, nothing),
    (rf"^divide the learning rate of the first {NUMBER} steps? by {NUMBER}", as_it_is, divide_first_lr),
    (rf"^divide the learning rate by {NUMBER}", as_it_is, divide_lr),
    (rf"^clip at {NUMBER}", as_it_is, clip),
    (r"^standardise the inputs", standardised, nothing),
    (r"^standardise the targets", in_small_units, nothing),
    (r"^normalise the input of each branch", normalised, nothing),
    (r"^run autocast in bfloat16", in_bfloat16, nothing),
    (r"^take the loss of the logits", loss_of_logits, nothing),
    (r"1e-6", with_eps, nothing),
)
"""Pattern of the remedy's words, the settings that it changes, and what it does to the task."""


def _weights(model: nn.Module, layers: Sequence[str]) -> Iterator[Tensor]:
    found = [p for name in layers for p in model.get_submodule(name).parameters(recurse=False) if p.ndim > 1]
    if not found:
        raise NotApplicableError(f"none of {', '.join(layers)} has a matrix")
    yield from found


def _replace(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, old):
                setattr(module, name, new())


def _schedule(task: Task, factor: Callable[[int], float]) -> None:
    """Multiply the learning rate of each step by ``factor``, whatever sets it."""
    if task.train_step is not None:
        raise NotApplicableError("a loop of its own")
    before, step = task.optimizer.step, task.optimizer

    def scaled(*given: Any, **named: Any) -> Any:
        rates = [group["lr"] for group in step.param_groups]
        for group, rate in zip(step.param_groups, rates):
            group["lr"] = rate * factor(scaled.done)
        result = before(*given, **named)
        for group, rate in zip(step.param_groups, rates):
            group["lr"] = rate
        scaled.done += 1
        return result

    scaled.done = 0  # type: ignore[attr-defined]
    task.optimizer.step = scaled  # type: ignore[method-assign]


def _recurrent(model: nn.Module, layers: Sequence[str]) -> Iterator[tuple[Tensor, bool]]:
    """The state's matrices, one for each gate, and whether a ReLU follows."""
    for name in layers:
        core = model.get_submodule(name)
        if not isinstance(core, nn.RNNBase):
            raise NotApplicableError(f"{name} is no recurrent layer")
        for weight in core.weight_hh_l0.split(core.hidden_size):
            yield weight, core.mode == "RNN_RELU"


def _open_gate(core: nn.Module, value: float) -> None:
    """The second gate of LSTM and GRU is the one that keeps the state."""
    core.bias_ih_l0[core.hidden_size : 2 * core.hidden_size] = value
    core.bias_hh_l0[core.hidden_size : 2 * core.hidden_size] = 0


def _length(program: Program) -> int:
    if program.recipe is not rnn:
        raise NotApplicableError(f"{program.name} has no time steps")
    return int(program.settings.get("length", 40))
