"""Recurrent networks that remember."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.rnn import rnn

row = group("recurrent")

PROGRAMS = (
    row("irnn-clipped", rnn, "identity weights, ReLU and clipping (Le 2015)", cell="relu", init="identity", length=30,
        clip=1.0, optimizer="adam", lr=2e-3),
    row("tanh-orthogonal", rnn, "20 time steps", cell="tanh", length=20, optimizer="adam", lr=2e-3, clip=1.0),
    row("gru", rnn, "", cell="gru", length=20, optimizer="adam", lr=1e-2),
    row("lstm", rnn, "a forget gate of 2 (Gers 2000)", cell="lstm", length=20, optimizer="adam", lr=1e-2),
    row("lstm-rows", rnn, "a row of the digits at a time", data="digits", cell="lstm", memory=1.0, optimizer="adam",
        lr=5e-3),
    row("gru-first-and-last", rnn, "", data="first_and_last", cell="gru", length=15, optimizer="adam", lr=1e-2),
    row("tanh-rows", rnn, "", data="digits", cell="tanh", optimizer="sgd", lr=0.1, clip=1.0, width=48),
)  # fmt: skip
