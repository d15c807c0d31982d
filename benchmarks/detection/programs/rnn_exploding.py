"""Recurrent networks whose gradient grows through time, trained without clipping."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import rnn

FAMILY = Family("rnn-exploding", "exploding", "clipping", "Pascanu et al. 2013: rho(W) > 1")
CELL = {"length": 20, "batch": 32}

PROGRAMS = (
    FAMILY.program(
        "relu-momentum",
        rnn,
        {**CELL, "cell": "relu", "init": "identity", "radius": 1.1, "lr": 0.03, "options": {"momentum": 0.9}},
        {"clip": (0.3, None)},
        {"lr": {"lr": 3e-4}, "init_scale": {"radius": 0.9}, "architecture": {"cell": "lstm", "init": "orthogonal"}},
        layers="core",
    ),
    FAMILY.program(
        "relu-adam",
        rnn,
        {**CELL, "length": 30, "cell": "relu", "init": "identity", "radius": 1.15, "optimizer": "adam", "lr": 3e-3},
        {"clip": (1.0, None)},
        {"lr": {"lr": 3e-4}, "init_scale": {"radius": 0.9}},
        layers="core",
        severity="degraded",
    ),
    FAMILY.program(
        "parity",
        rnn,
        {
            **CELL,
            "data": "parity",
            "cell": "relu",
            "init": "identity",
            "radius": 1.03,
            "lr": 0.03,
            "options": {"momentum": 0.9},
        },
        {"clip": (0.3, None)},
        {"lr": {"lr": 3e-4}, "init_scale": {"radius": 0.9}},
        layers="core",
    ),
    FAMILY.program(
        "first-and-last",
        rnn,
        {
            **CELL,
            "data": "first_and_last",
            "cell": "relu",
            "init": "identity",
            "radius": 1.03,
            "lr": 0.03,
            "options": {"momentum": 0.9},
        },
        {"clip": (0.3, None)},
        {"lr": {"lr": 3e-4}, "init_scale": {"radius": 0.9}},
        layers="core",
    ),
)
