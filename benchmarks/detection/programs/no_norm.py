"""Networks that stand a high learning rate thanks to their normalisation, without it."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp, transformer

FAMILY = Family("no-norm", "unstable", "norm", "Bjorck et al. 2018: without BatchNorm only small steps are stable")
REMOVED = {"norm": ("batch", None)}

PROGRAMS = (
    FAMILY.program(
        "mlp-10",
        mlp,
        {"depth": 10, "lr": 0.6},
        REMOVED,
        {"lr": {"lr": 0.05}, "clipping": {"clip": 0.1}},
    ),
    FAMILY.program(
        "cnn-5",
        cnn,
        {"depth": 5, "lr": 1.0, "batch": 32, "steps": 250},
        REMOVED,
        {"lr": {"lr": 0.1}, "clipping": {"clip": 0.1}},
    ),
    FAMILY.program(
        "transformer-4",
        transformer,
        {"depth": 4, "width": 24, "batch": 16, "lr": 8e-3, "steps": 180},
        {"norm": ("pre", None)},
        {"lr": {"lr": 1e-3}, "clipping": {"clip": 0.1}},
        severity="degraded",
    ),
    FAMILY.program(
        "transformer-3",
        transformer,
        {"depth": 3, "width": 24, "batch": 16, "lr": 1.2e-2},
        {"norm": ("pre", None)},
        {"lr": {"lr": 1e-3}, "warmup": {"warmup": 100}},
        severity="degraded",
    ),
)
