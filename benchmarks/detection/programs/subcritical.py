"""Deep networks whose weights are below the critical variance: signal and gradient shrink in every layer."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import mlp

FAMILY = Family(
    "subcritical", "vanishing", "init_scale", "Schoenholz et al. 2017: chi_1 = sigma_w^2 E[phi'^2] < 1; He et al. 2015"
)
TANH = {"activation": "tanh", "init": "orthogonal", "lr": 0.05}
BATCH_NORM, RESIDUAL = {"norm": "batch"}, {"residual": True}

PROGRAMS = (
    FAMILY.program(
        "tanh-20",
        mlp,
        {**TANH, "depth": 20, "width": 48},
        {"gain": (1.0, 0.5)},
        {"residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
    ),
    FAMILY.program(
        "tanh-30",
        mlp,
        {**TANH, "depth": 30, "width": 32},
        {"gain": (1.0, 0.7)},
        {"residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
    ),
    FAMILY.program(
        "relu-10",
        mlp,
        {"depth": 10, "lr": 0.05},
        {"gain": (1.0, 0.4)},
        {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-7].*",
    ),
    FAMILY.program(
        "relu-20-adam",
        mlp,
        {"depth": 20, "width": 48, "optimizer": "adam", "lr": 1e-3},
        {"gain": (1.0, 0.35)},
        {"residual": RESIDUAL, "lr": {"lr": 1e-2}},
        layers="hidden.[0-9].*",
    ),
    FAMILY.program(
        "tanh-20-mild",
        mlp,
        {**TANH, "depth": 20, "width": 48},
        {"gain": (1.0, 0.8)},
        {"residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
        severity="degraded",
    ),
    FAMILY.program(
        "relu-10-mild",
        mlp,
        {"depth": 10, "lr": 0.05},
        {"gain": (1.0, 0.6)},
        {"norm": BATCH_NORM, "residual": RESIDUAL, "lr": {"lr": 0.5}},
        layers="hidden.[0-5].*",
        severity="degraded",
    ),
    FAMILY.program(
        "gelu-15",
        mlp,
        {"activation": "gelu", "depth": 15, "width": 48, "lr": 0.1},
        {"gain": (1.1, 0.85)},
        {"residual": RESIDUAL, "activation": {"activation": "relu"}},
        layers="hidden.[0-9].*",
        severity="degraded",
    ),
)
