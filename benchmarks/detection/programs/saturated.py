"""Sigmoids and tanhs driven to their ends, where their derivative is zero."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import mlp

FAMILY = Family("saturated", "saturated", "init_scale", "Glorot and Bengio 2010: saturated units pass no gradient on")
TANH, SIGMOID = {"activation": "tanh", "init": "xavier"}, {"activation": "sigmoid", "init": "xavier"}
BATCH_NORM = {"norm": "batch"}

PROGRAMS = (
    FAMILY.program(
        "tanh-4",
        mlp,
        TANH,
        {"gain": (1.0, 20.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "tanh-4-adam",
        mlp,
        {**TANH, "optimizer": "adam", "lr": 1e-3},
        {"gain": (1.0, 20.0)},
        {"norm": BATCH_NORM, "activation": {"activation": "relu", "gain": 1.0}, "lr": {"lr": 1e-2}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "sigmoid-3",
        mlp,
        {**SIGMOID, "depth": 3, "width": 16, "lr": 1.0},
        {"gain": (1.0, 60.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 0.1}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "tanh-6",
        mlp,
        {**TANH, "depth": 6},
        {"gain": (1.0, 40.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "tanh-3-inputs",
        mlp,
        {**TANH, "depth": 3, "width": 8, "lr": 0.3},
        {"input_scale": (1.0, 1e4)},
        {"norm": BATCH_NORM, "lr": {"lr": 3.0}},
        layers="hidden.0.*",
        cause="data_scaling",
        severity="degraded",
    ),
)
