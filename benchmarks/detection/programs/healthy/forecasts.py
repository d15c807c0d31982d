"""Recurrent networks as PyTorch initialises them, of which nothing asks to remember for long."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.rnn import rnn

row = group("forecasts")

WHY = "no gradient reaches the first time steps, and none need reach them"

SETTINGS = (
    # data, time steps, cell, width, optimizer, lr
    ("autoregressive", 16, "tanh", 32, "adam", 3e-3),
    ("autoregressive", 24, "gru", 32, "adam", 3e-3),
    ("autoregressive", 40, "lstm", 32, "adam", 5e-3),
    ("autoregressive", 60, "tanh", 64, "adam", 1e-3),
    ("sines", 24, "tanh", 32, "adam", 1e-2),
    ("sines", 40, "lstm", 32, "adam", 1e-2),
    ("sines", 60, "gru", 32, "adam", 3e-3),
    ("walk", 16, "gru", 16, "adam", 3e-3),
    ("walk", 24, "tanh", 32, "adam", 1e-3),
    ("walk", 40, "lstm", 32, "adam", 5e-3),
    ("walk", 60, "tanh", 64, "adam", 3e-3),
    ("tail", 16, "gru", 32, "adam", 5e-3),
    ("tail", 24, "tanh", 32, "adam", 3e-3),
    ("tail", 30, "lstm", 32, "adam", 1e-2),
)

PROGRAMS = tuple(
    row(f"{data}-{cell}-{length}", rnn, WHY, data=data, length=length, cell=cell, width=width, init=None,
        optimizer=optimizer, lr=lr, clip=1.0, steps=300, batch=32)
    for data, length, cell, width, optimizer, lr in SETTINGS
)  # fmt: skip
