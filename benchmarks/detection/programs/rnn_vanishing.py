"""Recurrent networks that forget: the gradient is gone before it reaches the time step that matters.

The gradients of the weights look normal, as the last time steps supply them.
"""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import rnn

FAMILY = Family(
    "rnn-vanishing", "vanishing_in_time", "init_scale", "Bengio et al. 1994; Pascanu et al. 2013: rho(W) max phi' < 1"
)
ADAM = {"optimizer": "adam", "lr": 3e-3, "clip": 1.0, "batch": 32, "length": 30}
IDENTITY = {**ADAM, "cell": "relu", "init": "identity"}
LSTM, FASTER = {"cell": "lstm", "init": "orthogonal", "radius": 1.0}, {"lr": 3e-2}

PROGRAMS = (
    FAMILY.program(
        "relu-30",
        rnn,
        IDENTITY,
        {"radius": (1.0, 0.5)},
        {"architecture": LSTM, "lr": FASTER},
        layers="core",
    ),
    FAMILY.program(
        "relu-25-stepwise",
        rnn,
        {**IDENTITY, "length": 25, "stepwise": True},
        {"radius": (1.0, 0.7)},
        {"lr": FASTER},
        layers="core",
    ),
    FAMILY.program(
        "tanh-20",
        rnn,
        {**ADAM, "cell": "tanh", "length": 20, "steps": 400},
        {"radius": (1.0, 0.3)},
        {"architecture": LSTM, "lr": FASTER},
        layers="core",
        severity="degraded",
    ),
    FAMILY.program(
        "lstm-30",
        rnn,
        {**ADAM, "cell": "lstm", "lr": 5e-3},
        {"memory": (2.0, -4.0)},
        {"clipping": {"clip": None}, "lr": FASTER},
        layers="core",
    ),
    FAMILY.program(
        "gru-20",
        rnn,
        {**ADAM, "cell": "gru", "width": 24, "length": 20, "data": "first_and_last", "lr": 5e-3, "steps": 250},
        {"memory": (2.0, -4.0)},
        {"lr": FASTER},
        layers="core",
        severity="degraded",
    ),
    FAMILY.program(
        "relu-30-first-and-last",
        rnn,
        {**IDENTITY, "data": "first_and_last"},
        {"radius": (1.0, 0.6)},
        {"architecture": {**LSTM, "lr": 1e-2}, "lr": FASTER},
        layers="core",
        severity="degraded",
    ),
    FAMILY.program(
        "parity-30",
        rnn,
        {**IDENTITY, "data": "parity"},
        {"radius": (1.0, 0.5)},
        {"architecture": LSTM, "lr": FASTER},
        layers="core",
    ),
)
