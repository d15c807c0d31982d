"""Weights that are too large: signal and gradient grow in every layer."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp, transformer

FAMILY = Family("large-init", "exploding", "init_scale", "He et al. 2015: factor (n s^2 / 2)^L, both ways")
BATCH_NORM = {"norm": "batch"}

PROGRAMS = (
    FAMILY.program(
        "mlp-8",
        mlp,
        {"depth": 8, "lr": 0.05},
        {"gain": (1.0, 2.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 5e-3}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "mlp-6-cancer",
        mlp,
        {"data": "breast_cancer", "depth": 6, "width": 32},
        {"gain": (1.0, 4.0)},
        {"norm": BATCH_NORM, "clipping": {"clip": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "cnn-4",
        cnn,
        {"depth": 4, "batch": 32},
        {"gain": (1.0, 6.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 1e-3}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "mlp-6-adam",
        mlp,
        {"depth": 6, "optimizer": "adam", "lr": 1e-3},
        {"gain": (1.0, 10.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 1e-4}, "clipping": {"clip": 1.0}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "cnn-4-mild",
        cnn,
        {"depth": 4, "batch": 32},
        {"gain": (1.0, 3.0)},
        {"norm": BATCH_NORM, "lr": {"lr": 1e-2}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(
        "transformer-3-branches",
        transformer,
        {"depth": 3, "width": 24, "batch": 16, "norm": None},
        {"residual_scale": (0.3, 10.0)},
        {"norm": {"norm": "pre"}, "lr": {"lr": 3e-4}},
        layers="blocks.*",
        severity="degraded",
    ),
    FAMILY.program(
        "transformer-2-no-norm",
        transformer,
        {"depth": 2, "batch": 16, "norm": None},
        {"gain": (1.0, 10.0)},
        {"norm": {"norm": "pre"}, "lr": {"lr": 3e-4}},
        layers="blocks.*",
        severity="degraded",
    ),
)
