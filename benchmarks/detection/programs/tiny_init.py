"""Weights of one small standard deviation whatever the fan-in: signal and gradient are lost on the way."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp, transformer

FAMILY = Family("tiny-init", "vanishing", "init_scale", "He et al. 2015: factor (n s^2 / 2)^L, both ways")
BATCH_NORM = {"norm": "batch"}

PROGRAMS = (
    FAMILY.program(
        "mlp-5",
        mlp,
        {"depth": 5},
        {"init": ("he", "normal"), "gain": (1.0, 0.01)},
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "mlp-3",
        mlp,
        {"depth": 3},
        {"init": ("he", "normal"), "gain": (1.0, 0.001)},
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "cnn-4",
        cnn,
        {"depth": 4, "batch": 32},
        {"init": ("he", "normal"), "gain": (1.0, 0.03)},
        {"norm": BATCH_NORM, "lr": {"lr": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "mlp-5-adam",
        mlp,
        {"depth": 5, "optimizer": "adam", "lr": 1e-3},
        {"init": ("he", "normal"), "gain": (1.0, 0.002)},
        {"norm": BATCH_NORM, "lr": {"lr": 1e-2}},
        layers="hidden.*",
        severity="degraded",
    ),
    FAMILY.program(  # LayerNorm's weight is a factor of every signal, and of every gradient on its way back
        "post-ln-4",
        transformer,
        {"depth": 4, "width": 24, "batch": 16, "norm": "post", "steps": 150},
        {"norm_gain": (1.0, 0.1)},
        {"lr": {"lr": 3e-2}, "norm": {"norm": "pre"}},
        layers="blocks.*",
        severity="degraded",
    ),
)
