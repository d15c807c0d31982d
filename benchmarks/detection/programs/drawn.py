"""Programs drawn at random from the settings of each family, so that no one chose what is easy to tell.

Those in the other files were written one by one, each to show something. A rule tuned on half of them may know them by
heart; whether it knows the fault is asked by these. A program is drawn by its own name, so that more may be added
without changing the others; what turns out not to fail, or not surely, is dropped by its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

from benchmarks.detection.programs import (
    dead_relu,
    half_precision,
    high_lr,
    large_init,
    no_norm,
    no_residual,
    rnn_exploding,
    rnn_vanishing,
    saturated,
    sigmoid,
    subcritical,
    tiny_init,
    unscaled_data,
)
from benchmarks.detection.programs.family import Family
from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes import cnn, mlp, rnn, transformer
from benchmarks.detection.recipes.plain import plain
from benchmarks.detection.recipes.residual import BRANCHES, residual
from benchmarks.detection.task import Program

Settings = Mapping[str, Any]
BATCH_NORM, RESIDUAL, LEAKY = {"norm": "batch"}, {"residual": True}, {"activation": "leaky_relu"}
TABLES = ("digits", "digits", "breast_cancer", "wine")


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")


class Draw(Random):
    """The settings of one program, by its name."""

    def log(self, low: float, high: float) -> float:
        """Evenly between the logarithms, to two digits."""
        return two_digits(low * (high / low) ** self.random())

    def even(self, low: float, high: float) -> float:
        """Evenly, to two digits."""
        return two_digits(self.uniform(low, high))

    def optimizer(self, sgd: float, adam: float = 1e-3) -> dict[str, Any]:
        """SGD, with or without momentum, or Adam, each at a learning rate that suits it."""
        kind = self.choice(("sgd", "momentum", "adam"))
        if kind == "adam":
            return {"optimizer": "adam", "lr": adam}
        options = {"options": {"momentum": 0.9}} if kind == "momentum" else {}
        return {"optimizer": "sgd", "lr": two_digits(sgd / 5 if options else sgd), **options}

    def perceptron(self, shallowest: int, deepest: int) -> dict[str, Any]:
        """Data, depth, width and optimizer; the deeper, the smaller the steps."""
        depth = self.randint(shallowest, deepest)
        rate = 0.1 if depth <= 4 else 0.05
        return {"data": self.choice(TABLES), "depth": depth, "width": self.choice((24, 32, 48, 64, 96)),
                **self.optimizer(rate), "batch": self.choice((32, 64))}  # fmt: skip

    def images(self, shallowest: int, deepest: int) -> dict[str, Any]:
        """Depth, channels and optimizer of a convolutional network."""
        return {"depth": self.randint(shallowest, deepest), "channels": self.choice((6, 8, 12)), "batch": 32,
                **self.optimizer(0.1, 2e-3), "steps": self.choice((200, 250))}  # fmt: skip

    def network(self, images: tuple[int, int], perceptron: tuple[int, int]) -> tuple[Any, dict[str, Any]]:
        """A convolutional network, or more often a perceptron, of so many layers."""
        return (cnn, self.images(*images)) if self.random() < 0.3 else (mlp, self.perceptron(*perceptron))


def _times(settings: Settings, factor: float) -> dict[str, Any]:
    return {"lr": two_digits(settings["lr"] * factor)}


def _sigmoid(draw: Draw, add: Callable[..., Program]) -> Program:
    recipe, base = draw.network((2, 6), (2, 12))
    seeded = {"activation": ("relu", "sigmoid")}
    return add(recipe, base, seeded, {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": _times(base, 10)})


def _subcritical(draw: Draw, add: Callable[..., Program]) -> Program:
    base = draw.perceptron(6, 30)
    if draw.random() < 0.5:
        base |= {"activation": "tanh", "init": "orthogonal"}
    lost = draw.even(1.5, 9.0)  # decades of gradient between the last layer and the first
    seeded = {"gain": (1.0, two_digits(10 ** (-lost / base["depth"])))}
    return add(mlp, base, seeded, {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": _times(base, 10)})


def _tiny_init(draw: Draw, add: Callable[..., Program]) -> Program:
    recipe, base = draw.network((2, 6), (2, 8))
    seeded = {"init": ("he", "normal"), "gain": (1.0, draw.log(1e-3, 0.05))}
    return add(recipe, base, seeded, {"norm": BATCH_NORM, "lr": _times(base, 10)})


def _no_residual(draw: Draw, add: Callable[..., Program]) -> Program:
    seeded = {"residual": (True, False)}
    kind = draw.random()
    if kind < 0.3:
        base = {"depth": draw.randint(3, 7), "width": 24, "batch": 16, "lr": draw.log(1e-3, 4e-3), "steps": 150}
        return add(transformer, base, seeded, {"lr": _times(base, 10), "norm": {"norm": "post"}})
    if kind < 0.5:
        recipe, base = cnn, {"init": "lecun", **draw.images(5, 12)}
    else:
        recipe, base = mlp, {"init": "lecun", "activation": draw.choice(("relu", "tanh")), **draw.perceptron(8, 28)}
        base |= {"gain": 0.7} if base["activation"] == "tanh" else {}
    return add(recipe, base, seeded, {"init_scale": {"init": "he", "gain": 1.0}, "norm": BATCH_NORM})


def _sequences(draw: Draw) -> dict[str, Any]:
    return {"data": draw.choice(("copy_first", "first_and_last", "parity")), "length": draw.randint(12, 32),
            "width": draw.choice((24, 32)), "batch": 32, "steps": draw.choice((250, 350))}  # fmt: skip


def _rnn_vanishing(draw: Draw, add: Callable[..., Program]) -> Program:
    base = {**_sequences(draw), "optimizer": "adam", "lr": draw.log(2e-3, 6e-3), "clip": 1.0}
    base |= {"cell": draw.choice(("relu", "relu", "tanh", "gru", "lstm"))}
    if base["cell"] in ("gru", "lstm"):
        seeded: dict[str, Any] = {"memory": (2.0, draw.even(-6.0, -2.5))}
    else:
        base |= {"init": "identity"} if base["cell"] == "relu" else {}
        seeded = {"radius": (1.0, draw.even(0.3, 0.8))}
    lstm = {"cell": "lstm", "init": "orthogonal", "radius": 1.0, "memory": 2.0}
    return add(rnn, base, seeded, {"architecture": lstm, "lr": _times(base, 10)})


def _rnn_exploding(draw: Draw, add: Callable[..., Program]) -> Program:
    base = {**_sequences(draw), "cell": "relu", "init": "identity", "radius": draw.even(1.03, 1.25)}
    if draw.random() < 0.5:
        base |= {"optimizer": "sgd", "lr": draw.log(0.01, 0.05), "options": {"momentum": 0.9}}
    else:
        base |= {"optimizer": draw.choice(("sgd", "adam"))}
        base |= {"lr": 3e-3 if base["optimizer"] == "adam" else draw.log(0.03, 0.2)}
    seeded = {"clip": (draw.choice((0.3, 1.0)), None)}
    return add(rnn, base, seeded, {"lr": _times(base, 0.01), "init_scale": {"radius": 0.95}})


def _large_init(draw: Draw, add: Callable[..., Program]) -> Program:
    kind = draw.random()
    if kind < 0.25:
        base = {"depth": draw.randint(2, 4), "width": 24, "batch": 16, "norm": None, "steps": 150}
        seeded: dict[str, Any] = {"gain": (1.0, draw.log(4.0, 15.0))}
        if draw.random() < 0.5:
            seeded = {"residual_scale": (0.3, draw.log(4.0, 15.0))}
        return add(transformer, base, seeded, {"norm": {"norm": "pre"}, "lr": {"lr": 3e-4}})
    recipe, base = (cnn, draw.images(2, 5)) if kind < 0.5 else (mlp, draw.perceptron(2, 12))
    most = 30.0 ** (2 / base["depth"]) + 1.0
    seeded = {"gain": (1.0, draw.log(1.5, max(2.0, most)))}
    return add(recipe, base, seeded, {"norm": BATCH_NORM, "lr": _times(base, 0.03), "clipping": {"clip": 0.1}})


def _high_lr(draw: Draw, add: Callable[..., Program]) -> Program:
    kind = draw.random()
    if kind < 0.2:
        recipe: Any = transformer
        base = {"depth": draw.randint(1, 4), "width": draw.choice((24, 32)), "batch": 16, "lr": 2e-3, "steps": 160,
                "norm": draw.choice(("pre", "post"))}  # fmt: skip
    elif kind < 0.4:
        recipe, base = rnn, {**_sequences(draw), "cell": draw.choice(("tanh", "lstm", "gru")), "length": 12}
        base |= {"optimizer": "adam", "lr": 4e-3}
    elif kind < 0.6:
        recipe, base = cnn, {**draw.images(2, 5), "norm": draw.choice((None, None, "batch"))}
    else:
        recipe, base = mlp, {**draw.perceptron(1, 8), "activation": draw.choice(("relu", "relu", "tanh", "gelu"))}
    lr = base["lr"]
    seeded = {"lr": (lr, two_digits(lr * draw.log(6.0, 200.0)))}
    norm = {"norm": BATCH_NORM} if recipe in (cnn, mlp) and not base.get("norm") else {}
    return add(recipe, base, seeded, {"clipping": {"clip": 0.1}, "warmup": {"warmup": 100}, **norm})


def _no_norm(draw: Draw, add: Callable[..., Program]) -> Program:
    if draw.random() < 0.4:
        base = {"depth": draw.randint(2, 6), "width": 24, "batch": 16, "lr": draw.log(4e-3, 2e-2), "steps": 160}
        return add(transformer, base, {"norm": ("pre", None)}, {"lr": {"lr": 1e-3}, "clipping": {"clip": 0.1}})
    recipe, base = (cnn, draw.images(3, 8)) if draw.random() < 0.5 else (mlp, draw.perceptron(4, 14))
    adam = base["optimizer"] == "adam"
    base |= {"lr": draw.log(5e-3, 3e-2) if adam else draw.log(0.3, 1.0), "options": {}}
    lower = {"lr": 1e-3 if adam else 0.05}
    return add(recipe, base, {"norm": ("batch", None)}, {"lr": lower, "clipping": {"clip": 0.1}})


def _unscaled_data(draw: Draw, add: Callable[..., Program]) -> Program:
    kind = draw.random()
    if kind < 0.2:
        recipe, base = cnn, draw.images(2, 4)
        seeded: dict[str, Any] = {"input_scale": (1.0, draw.log(10.0, 1000.0))}
    elif kind < 0.4:
        recipe, base = mlp, {**draw.perceptron(1, 4), "data": "diabetes"}
        seeded = {"target_scale": (1.0, draw.log(30.0, 3000.0))}
    else:
        recipe, base = mlp, draw.perceptron(1, 6)
        of_one = {"feature_scale": (1.0, draw.log(300.0, 1e5))}
        of_all = {"input_scale": (1.0, draw.log(20.0, 2000.0))}
        seeded = draw.choice((of_all, of_one, {"raw": (False, True)}))
        base |= {"data": draw.choice(("wine", "breast_cancer", "iris"))} if "raw" in seeded else {}
    return add(recipe, base, seeded, {"norm": BATCH_NORM, "lr": _times(base, 0.01)})


def _half_precision(draw: Draw, add: Callable[..., Program]) -> Program:
    base = {**draw.perceptron(2, 5), "precision": "float16", "steps": 200}
    seeded, symptom = draw.choice((
        ({"loss_scale": (2.0**10, 2.0 ** draw.randint(19, 30))}, "overflow"),
        ({"scaler": ({}, {"init_scale": 2.0**40, "backoff_factor": draw.choice((0.99, 0.999))})}, "overflow"),
        ({"loss_weight": (1.0, draw.log(1e-8, 1e-5))}, "underflow"),
    ))  # fmt: skip
    base |= {"optimizer": "adam", "lr": 1e-3, "options": {}} if symptom == "underflow" else {}
    return add(mlp, base, seeded, {"norm": BATCH_NORM, "lr": _times(base, 0.1)}, symptom=symptom)


def _dead_relu(draw: Draw, add: Callable[..., Program]) -> Program:
    recipe, base = draw.network((1, 4), (1, 6))
    seeded, cause = {"bias": (0.0, -draw.log(1.5, 12.0))}, "init_scale"
    if recipe is mlp and draw.random() < 0.3:
        base |= {"depth": draw.randint(5, 12)}
        seeded, cause = {"width": (16, draw.choice((2, 3)))}, "width"
    return add(recipe, base, seeded, {"norm": BATCH_NORM, "activation": LEAKY}, cause=cause)


def _saturated(draw: Draw, add: Callable[..., Program]) -> Program:
    base = {**draw.perceptron(2, 6), "activation": draw.choice(("tanh", "tanh", "sigmoid")), "init": "xavier"}
    if base["activation"] == "sigmoid":
        base |= {"depth": draw.randint(1, 3), "optimizer": "sgd", "lr": 1.0, "options": {}}
    seeded, cause = {"gain": (1.0, draw.log(8.0, 80.0))}, "init_scale"
    if draw.random() < 0.3:
        seeded, cause = {"input_scale": (1.0, draw.log(100.0, 1e5))}, "data_scaling"
    return add(mlp, base, seeded, {"norm": BATCH_NORM, "lr": _times(base, 0.1)}, cause=cause)


FAULTS: tuple[tuple[Family, Callable[..., Program], int], ...] = (
    (sigmoid.FAMILY, _sigmoid, 14),
    (subcritical.FAMILY, _subcritical, 12),
    (tiny_init.FAMILY, _tiny_init, 10),
    (no_residual.FAMILY, _no_residual, 14),
    (rnn_vanishing.FAMILY, _rnn_vanishing, 16),
    (rnn_exploding.FAMILY, _rnn_exploding, 14),
    (large_init.FAMILY, _large_init, 12),
    (high_lr.FAMILY, _high_lr, 18),
    (no_norm.FAMILY, _no_norm, 14),
    (unscaled_data.FAMILY, _unscaled_data, 14),
    (half_precision.FAMILY, _half_precision, 10),
    (dead_relu.FAMILY, _dead_relu, 14),
    (saturated.FAMILY, _saturated, 12),
)
"""Family, what draws one of its programs, and how many are drawn."""


def _healthy(draw: Draw) -> tuple[Any, dict[str, Any]]:
    """A recipe and settings that someone might well train with."""
    kind = draw.choice(("plain", "plain", "cnn", "transformer", "rnn", "residual"))
    loop: dict[str, Any] = {"schedule": draw.choice(("constant", "constant", "cosine", "one_cycle", "steps"))}
    loop |= {"warmup": draw.choice((0, 0, 20)), "clip": draw.choice((None, None, 1.0, 0.1))}
    adam = {"optimizer": draw.choice(("adam", "adam", "adamw")), "lr": draw.log(5e-4, 5e-3)}
    adam |= {"loss_weight": draw.choice((1.0, 1.0, draw.log(1e-5, 1e4)))}
    if kind == "plain":
        depth = draw.randint(0, 6)
        sgd = {"optimizer": "sgd", "lr": draw.log(0.02, 0.1), "options": {"momentum": draw.choice((0.0, 0.9))}}
        norm = draw.choice((None, "batch", "layer"))
        return plain, {"data": draw.choice((*TABLES, "iris", "blobs", "circles", "diabetes")), "depth": depth,
                       "width": draw.choice((8, 16, 32, 64, 128, 256)), "norm": norm,
                       "activation": draw.choice(("relu", "tanh", "gelu", "leaky_relu", "sigmoid")),
                       "steps": draw.choice((300, 500)), "batch": draw.choice((8, 32, 64, 128)),
                       **loop, **draw.choice((adam, sgd))}  # fmt: skip
    if kind == "cnn":
        return cnn, {**draw.images(2, 6), "norm": draw.choice((None, "batch")), **loop}
    if kind == "transformer":
        return transformer, {"depth": draw.randint(1, 5), "width": draw.choice((16, 24, 32)), "batch": 16,
                             "norm": draw.choice(("pre", "post")), "data": draw.choice(("digits", "marked")),
                             "steps": 180, **loop, **adam}  # fmt: skip
    if kind == "rnn":
        return rnn, {**_sequences(draw), "data": draw.choice(("digits", "first_and_last")),
                     "length": draw.randint(6, 16), "cell": draw.choice(("lstm", "gru", "tanh")), **loop,
                     **adam}  # fmt: skip
    return residual, {"branch": draw.choice(tuple(BRANCHES)), "depth": draw.randint(3, 12), "steps": 250, **loop,
                      **adam}  # fmt: skip


HEALTHY_DRAWN = 80


def is_drawn(program: Program) -> bool:
    """Whether no one chose its settings."""
    return "/drawn-" in program.name or program.name.startswith("healthy-drawn/")


def faulty() -> tuple[Program, ...]:
    """The faulty ones, as ``"sigmoid/drawn-01"``."""
    found = []
    for family, make, count in FAULTS:
        for number in range(1, count + 1):
            name = f"drawn-{number:02}"
            found.append(make(Draw(f"{family.name}/{name}"), partial(family.program, name, severity="")))
    return tuple(found)


def healthy() -> tuple[Program, ...]:
    """The healthy ones, as ``"healthy-drawn/01"``."""
    row, found = group("drawn"), []
    for number in range(1, HEALTHY_DRAWN + 1):
        recipe, settings = _healthy(Draw(f"healthy/{number:02}"))
        found.append(row(f"{number:02}", recipe, "drawn at random", **settings))
    return tuple(found)


FAULTY, HEALTHY = faulty(), healthy()
