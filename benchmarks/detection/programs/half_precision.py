"""float16: above 65,504 is inf, below 6e-8 is 0."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import mlp, transformer

FAMILY = Family("half-precision", "overflow", "precision", "Micikevicius et al. 2018: loss scaling")
MLP = {"depth": 3, "width": 48, "steps": 200}
HALF = {**MLP, "precision": "float16"}
ADAM = {"optimizer": "adam", "lr": 1e-3}
SINGLE = {"precision": "float32", "scaler": None, "loss_scale": 1.0}
SCALER = {"init_scale": 2.0**16}

PROGRAMS = (
    FAMILY.program(
        "fixed-scale",
        mlp,
        HALF,
        {"loss_scale": (2.0**10, 2.0**24)},
        {"lr": {"lr": 1e-3}},
        layers="*",
    ),
    FAMILY.program(  # the scale hardly falls, so that every step is skipped
        "stuck-scaler",
        mlp,
        HALF,
        {"scaler": (SCALER, {"init_scale": 2.0**40, "backoff_factor": 0.999})},
        {"lr": {"lr": 1e-3}},
        layers="*",
    ),
    FAMILY.program(
        "inputs-x10000",
        mlp,
        {**MLP, "norm": "batch", "input_scale": 1e4},
        {"precision": ("float32", "float16")},
        {"data_scaling": {"input_scale": 1.0}, "lr": {"lr": 1e-3}},
        layers="hidden.0.layer",
    ),
    FAMILY.program(  # without 1/sqrt(d), and with a temperature on top
        "attention-logits",
        transformer,
        {"depth": 1, "batch": 16, "steps": 150, "lr": 5e-3, "precision": "float16"},
        {"logit_scale": (None, 1e5)},
        {"precision": {"precision": "float32"}, "lr": {"lr": 5e-4}},
        layers="blocks.0.attention*",
        cause="architecture",
    ),
    FAMILY.program(
        "no-scaler",
        mlp,
        {**HALF, **ADAM, "loss_weight": 1e-6},
        {"scaler": ({"init_scale": 2.0**20}, None)},
        {"lr": {"lr": 1e-2}},
        layers="*",
        symptom="underflow",
    ),
    FAMILY.program(
        "no-scaler-mild",
        mlp,
        {**HALF, **ADAM, "loss_weight": 3e-6},
        {"scaler": ({"init_scale": 2.0**20}, None)},
        {"lr": {"lr": 1e-2}},
        layers="*",
        symptom="underflow",
        severity="degraded",
    ),
)
