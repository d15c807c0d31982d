"""Deep networks that train with skip connections, without them."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp, transformer

FAMILY = Family("no-residual", "vanishing", "residual", "Yang and Schoenholz 2017; Saxe et al. 2014")
REMOVED = {"residual": (True, False)}

PROGRAMS = (
    FAMILY.program(
        "relu-24",
        mlp,
        {"init": "lecun", "depth": 24, "width": 32, "lr": 0.05, "steps": 250},
        REMOVED,
        {"init_scale": {"init": "he"}, "norm": {"norm": "batch"}, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
    ),
    FAMILY.program(
        "cnn-8",
        cnn,
        {"init": "lecun", "depth": 8, "batch": 32, "lr": 0.07, "steps": 250},
        REMOVED,
        {"norm": {"norm": "batch"}, "lr": {"lr": 1.0}},
        layers="hidden.[0-5].*",
        severity="degraded",
    ),
    FAMILY.program(
        "transformer-6",
        transformer,
        {"depth": 6, "width": 24, "batch": 16, "steps": 130},
        REMOVED,
        {"lr": {"lr": 3e-2}, "norm": {"norm": "post"}},
        layers="blocks.*",
    ),
    FAMILY.program(
        "sigmoid-6",
        mlp,
        {"activation": "sigmoid", "depth": 6, "lr": 0.3},
        REMOVED,
        {"activation": {"activation": "relu"}, "norm": {"norm": "batch"}},
        layers="hidden.[0-3].*",
    ),
    FAMILY.program(
        "tanh-14",
        mlp,
        {"activation": "tanh", "init": "lecun", "gain": 0.7, "depth": 14, "width": 48, "lr": 0.05},
        REMOVED,
        {"init_scale": {"init": "orthogonal", "gain": 1.0}, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
        severity="degraded",
    ),
    FAMILY.program(
        "relu-12",
        mlp,
        {"init": "lecun", "depth": 12, "lr": 0.05},
        REMOVED,
        {"init_scale": {"init": "he"}, "norm": {"norm": "batch"}, "lr": {"lr": 0.5}},
        layers="hidden.[0-9].*",
        severity="degraded",
    ),
    FAMILY.program(  # Noci et al. 2022: tokens become alike with depth, and queries and keys get no gradient
        "transformer-4",
        transformer,
        {"depth": 4, "width": 24, "batch": 16, "steps": 170},
        REMOVED,
        {"lr": {"lr": 3e-2}, "norm": {"norm": "post"}},
        layers="blocks.3.attention.[qk]*",
        severity="degraded",
    ),
)
