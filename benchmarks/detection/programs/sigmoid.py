"""Deep networks of sigmoids: each layer multiplies the gradient by at most a quarter of its weights."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp

FAMILY = Family("sigmoid", "vanishing", "activation", "Glorot and Bengio 2010: sigmoid' is at most 1/4")
SIGMOID = {"activation": ("relu", "sigmoid")}
BATCH_NORM, RESIDUAL = {"norm": "batch"}, {"residual": True}

PROGRAMS = (
    FAMILY.program(
        "mlp-10",
        mlp,
        {"depth": 10, "lr": 0.05},
        SIGMOID,
        {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-7].*",
    ),
    FAMILY.program(
        "mlp-5-cancer",
        mlp,
        {"data": "breast_cancer", "depth": 5, "width": 32},
        SIGMOID,
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.[0-3].*",
    ),
    FAMILY.program(
        "cnn-4",
        cnn,
        {"depth": 4, "lr": 0.2, "batch": 32},
        SIGMOID,
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.[0-2].*",
    ),
    FAMILY.program(
        "mlp-3",
        mlp,
        {"depth": 3, "lr": 0.15},
        SIGMOID,
        {"norm": BATCH_NORM, "lr": {"lr": 2.0}},
        layers="hidden.[0-1].*",
        severity="degraded",
    ),
    FAMILY.program(
        "mlp-6-adam",
        mlp,
        {"depth": 6, "optimizer": "adam", "lr": 1e-3},
        SIGMOID,
        {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": {"lr": 1e-2}},
        layers="hidden.[0-3].*",
        severity="degraded",
    ),
    FAMILY.program(
        "cnn-3-adam",
        cnn,
        {"depth": 3, "batch": 32, "optimizer": "adam", "lr": 3e-3},
        SIGMOID,
        {"norm": BATCH_NORM, "lr": {"lr": 3e-2}},
        layers="hidden.[0-1].*",
        severity="degraded",
    ),
)
