"""Deep networks as PyTorch initialises them: their gradients vanish at first, and Adam finds the way out."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.plain import plain

row = group("deep")

WHY = "weights of variance 1 / (3 inputs), torch.nn.Linear's default"

SETTINGS = (
    # data, activation, depth, width, optimizer, lr
    ("digits", "relu", 6, 64, "adam", 1e-3),
    ("digits", "relu", 8, 64, "adam", 1e-3),
    ("digits", "relu", 8, 256, "adam", 3e-4),
    ("digits", "relu", 10, 128, "adam", 1e-3),
    ("digits", "relu", 12, 64, "adamw", 1e-3),
    ("digits", "leaky_relu", 8, 128, "adamw", 5e-4),
    ("digits", "leaky_relu", 11, 64, "adam", 1e-3),
    ("digits", "gelu", 7, 64, "adam", 1e-3),
    ("digits", "gelu", 9, 128, "adamw", 1e-3),
    ("digits", "elu", 9, 64, "adam", 1e-3),
    ("digits", "tanh", 8, 64, "adam", 1e-3),
    ("digits", "tanh", 12, 128, "adamw", 5e-4),
    ("diabetes", "relu", 7, 128, "adam", 1e-3),
    ("diabetes", "relu", 9, 64, "adamw", 1e-3),
    ("diabetes", "gelu", 8, 128, "adam", 5e-4),
    ("breast_cancer", "relu", 8, 64, "adam", 1e-3),
    ("breast_cancer", "gelu", 8, 64, "adam", 1e-3),
    ("breast_cancer", "relu", 11, 128, "adamw", 3e-4),
    ("circles", "relu", 8, 64, "adam", 1e-3),
    ("circles", "tanh", 7, 64, "adam", 3e-3),
    ("circles", "gelu", 8, 128, "adam", 1e-3),
    ("blobs", "relu", 9, 64, "adam", 1e-3),
    ("blobs", "leaky_relu", 12, 128, "adam", 5e-4),
    ("blobs", "elu", 10, 64, "adam", 1e-3),
)

PROGRAMS = tuple(
    row(f"{data}-{activation}-{depth}x{width}", plain, WHY, data=data, activation=activation, depth=depth, width=width,
        optimizer=optimizer, lr=lr, steps=600)
    for data, activation, depth, width, optimizer, lr in SETTINGS
)  # fmt: skip
