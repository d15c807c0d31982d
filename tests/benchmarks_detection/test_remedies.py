"""Every remedy that a cause can ask for, applied as written: what it does to the task."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.detection.recipes import cnn, mlp, rnn, transformer, undefined
from benchmarks.detection.remedies import NotApplicableError, apply
from benchmarks.detection.task import Program, Task
from gradwatch.records import Diagnosis

SMALL: dict[str, Any] = {"data": "iris", "depth": 2, "width": 8, "steps": 3}
HIDDEN = ("hidden.0.layer", "hidden.1.layer")


def applied(remedy: str, recipe: Any = mlp, layers: tuple[str, ...] = HIDDEN, **settings: Any) -> tuple[Task, Task]:
    """The task without the remedy, and with it."""
    program = Program("a/b", "a", recipe, {**(SMALL if recipe is mlp else {}), **settings})
    return program.build(0), apply(Diagnosis("some", 0.5, layers, (), remedy), program, 0)


def parameter(task: Task, name: str) -> torch.Tensor:
    return dict(task.model.named_parameters())[name].detach()


def stepped(task: Task, steps: int = 1, gradient: float = 1.0) -> list[float]:
    """How far each step moves the first parameter, whose gradient is always the same."""
    p, found = next(task.model.parameters()), []
    for step in range(steps):
        before = p.detach().clone()
        task.optimizer.zero_grad()
        p.grad = torch.full_like(p, gradient)
        if task.before_step is not None:
            task.before_step(step)
        task.optimizer.step()
        found.append((p.detach() - before).norm().item())
    return found


def test_weights_are_multiplied() -> None:
    before, after = applied("multiply the initial weights of hidden.0.layer and hidden.1.layer by 2.5: the squared ...")
    for name in HIDDEN:
        assert torch.allclose(parameter(after, f"{name}.weight"), 2.5 * parameter(before, f"{name}.weight"))
        assert torch.equal(parameter(after, f"{name}.bias"), parameter(before, f"{name}.bias"))
    assert torch.equal(parameter(after, "head.weight"), parameter(before, "head.weight"))


def test_weights_are_drawn() -> None:
    remedy = (
        "draw the initial weights of x from a normal distribution of standard deviation sqrt(2 / fan_in) (torch...)"
    )
    _, after = applied(remedy, width=256)
    assert parameter(after, "hidden.1.layer.weight").std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)


def test_biases_are_set_to_zero() -> None:
    before, after = applied("set the initial biases of hidden.0.layer ... hidden.1.layer to 0", bias=-5.0)
    assert parameter(before, "hidden.0.layer.bias").eq(-5).all()
    assert parameter(after, "hidden.0.layer.bias").eq(0).all()


def test_activations_are_replaced() -> None:
    _, after = applied("replace Sigmoid by ReLU with He initialisation; normalisation", activation="sigmoid", width=256)
    kinds = [type(m) for m in after.model.modules()]
    assert (nn.Sigmoid in kinds, kinds.count(nn.ReLU)) == (False, 2)
    assert parameter(after, "hidden.1.layer.weight").std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    _, after = applied("replace the ReLUs in hidden.0.layer by LeakyReLU, which passes a little everywhere")
    assert [type(m) for m in after.model.modules()].count(nn.LeakyReLU) == 2


def test_the_learning_rate_is_divided() -> None:
    before, after = applied("divide the learning rate by 20", lr=0.1)
    assert stepped(after, 3) == pytest.approx([s / 20 for s in stepped(before, 3)], rel=1e-5)
    assert after.optimizer.param_groups[0]["lr"] == 0.1  # where a scheduler expects it


def test_the_learning_rate_of_the_first_steps_is_divided() -> None:
    before, after = applied("divide the learning rate of the first 2 steps by 10", lr=0.1)
    small, large = stepped(after, 4), stepped(before, 4)
    assert small == pytest.approx([large[0] / 10, large[1] / 10, large[2], large[3]], rel=1e-4)


def test_gradients_are_clipped() -> None:
    _, after = applied("clip at 0.25: 3 times this run's median norm", lr=1.0)
    assert stepped(after, gradient=100.0) == pytest.approx([0.25], rel=1e-4)


def test_its_own_clipping_comes_first() -> None:
    _, after = applied("clip at 0.25: 3 times this run's median norm", lr=1.0, clip=0.1)
    assert stepped(after, gradient=100.0) == pytest.approx([0.1], rel=1e-4)


@pytest.mark.parametrize(
    ("remedy", "settings", "expected"),
    [
        ("add skip connections around the layers x, x + f(x) / 3", {"residual": False}, {"residual": True}),
        ("widen a ... b from 2 to 10 units", {"width": 2}, {"width": 10}),
        (
            "standardise the inputs: subtract each",
            {"raw": True, "input_scale": 9.0},
            {"raw": False, "input_scale": 1.0},
        ),
        ("normalise the inputs of these activations, with", {}, {"norm": "batch"}),
        ("bring what each layer passes from 0.1 to about 1", {}, {"norm": "batch"}),
        ("run autocast in bfloat16, which", {"precision": "float16", "loss_scale": 8.0}, {"precision": "bfloat16"}),
        ("take the loss of the logits: cross_entropy", {"loss": "softmax_by_hand"}, {"loss": "cross_entropy"}),
        (
            "multiply the output of each residual branch in x by 0.5, so",
            {"residual_scale": 10.0},
            {"residual_scale": 5.0},
        ),
        ("in features, log(x + 1e-6) in place of log(x)", {"eps": 0.0}, {"eps": 1e-6}),
    ],
)
def test_what_is_a_setting_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch, remedy: str, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    built: dict[str, Any] = {}

    def recipe(seed: int, **given: Any) -> Task:
        built.update(given)
        return mlp(seed, **SMALL)

    monkeypatch.setattr("benchmarks.detection.remedies.mlp", recipe)
    apply(Diagnosis("some", 0.5, HIDDEN, (), remedy), Program("a/b", "a", recipe, settings), 0)
    assert {name: built[name] for name in expected} == expected


def test_a_convolution_is_as_wide_as_it_has_channels() -> None:
    remedy = "widen a ... b from 2 to 5 units"
    _, after = applied(remedy, cnn, depth=2, channels=2)
    assert [p.shape[0] for name, p in after.model.named_parameters() if name.endswith("layer.weight")] == [5, 5]


def test_recurrent_weights() -> None:
    before, after = applied("multiply the recurrent weights of core by 2: orthogonal ...", rnn, ("core",), length=9)
    name = "core.weight_hh_l0"
    assert torch.allclose(parameter(after, name), 2 * parameter(before, name))
    for cell, expected in (("tanh", "orthogonal"), ("relu", "identity")):
        _, after = applied(
            "start the recurrent weights of core orthogonal, of ReLU", rnn, ("core",), cell=cell, radius=0.3
        )
        weight = parameter(after, name)
        assert torch.allclose(weight @ weight.T, torch.eye(32), atol=1e-5)
        assert torch.equal(weight, torch.eye(32)) == (expected == "identity")


@pytest.mark.parametrize(
    "remedy", ["start the recurrent weights of core ...", "start the bias of the forget gate of core at log(T)"]
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_are_opened(remedy: str, cell: str) -> None:
    _, after = applied(remedy, rnn, ("core",), cell=cell, length=12, memory=-4.0, width=8)
    assert torch.allclose(parameter(after, "core.bias_ih_l0")[8:16], torch.tensor(math.log(12)))


def test_norm_weights_begin_at_one() -> None:
    layers = ("blocks.0.norm_1", "blocks.1.norm_2")
    _, after = applied("start the weights of a and b at 1, 10 times what they are", transformer, layers, norm_gain=0.1)
    assert parameter(after, "blocks.0.norm_1.weight").eq(1).all()
    assert parameter(after, "blocks.0.norm_2.weight").eq(torch.tensor(0.1)).all()


@pytest.mark.parametrize(
    ("remedy", "recipe"),
    [
        ("look at the data", mlp),
        ("in x, add 1e-6 to what a division divides by", mlp),
        ("take the loss of the logits", undefined),
        ("multiply the recurrent weights of hidden.0.layer by 2: ...", mlp),
        ("add skip connections around the layers core", rnn),
    ],
)
def test_what_cannot_be_applied(remedy: str, recipe: Any) -> None:
    with pytest.raises(NotApplicableError):
        applied(remedy, recipe, **({"operation": "log"} if recipe is undefined else {}))
