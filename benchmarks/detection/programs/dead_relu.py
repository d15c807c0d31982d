"""ReLUs that are zero on every example and pass no gradient on."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp

FAMILY = Family("dead-relu", "dead", "init_scale", "Lu et al. 2020; Maas et al. 2013")
LEAKY = {"activation": "leaky_relu"}

PROGRAMS = (
    FAMILY.program(
        "mlp-4-bias",
        mlp,
        {},
        {"bias": (0.0, -10.0)},
        {"norm": {"norm": "batch"}, "activation": LEAKY, "lr": {"lr": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(
        "cnn-4-bias",
        cnn,
        {"batch": 32},
        {"bias": (0.0, -5.0)},
        {"norm": {"norm": "batch"}, "lr": {"lr": 1.0}},
        layers="hidden.*",
    ),
    FAMILY.program(  # a layer of 2 is born dead with probability 1/4
        "iris-narrow-10",
        mlp,
        {"data": "iris", "depth": 10, "optimizer": "adam", "lr": 0.01},
        {"width": (16, 2)},
        {"activation": LEAKY, "norm": {"norm": "batch"}},
        layers="hidden.*",
        cause="width",
    ),
    FAMILY.program(
        "mlp-1-bias",
        mlp,
        {"depth": 1},
        {"bias": (0.0, -4.0)},
        {"norm": {"norm": "batch"}, "activation": LEAKY, "lr": {"lr": 1.0}},
        layers="hidden.0.*",
        severity="degraded",
    ),
    FAMILY.program(
        "cancer-1-bias",
        mlp,
        {"data": "breast_cancer", "depth": 1, "width": 32},
        {"bias": (0.0, -6.0)},
        {"norm": {"norm": "batch"}, "activation": LEAKY},
        layers="hidden.0.*",
        severity="degraded",
    ),
)
