"""Inputs or targets in large units: curvature grows with the square of the input's size."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp

FAMILY = Family(
    "unscaled-data", "exploding", "data_scaling", "LeCun et al. 1998: lambda_max grows with the inputs' second moment"
)
RAW = {"raw": (False, True)}
ADAM = {"optimizer": "adam", "lr": 1e-3}

PROGRAMS = (
    FAMILY.program(
        "digits-x100",
        mlp,
        {},
        {"input_scale": (1.0, 100.0)},
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-3}},
    ),
    FAMILY.program(
        "cnn-x100",
        cnn,
        {"batch": 32},
        {"input_scale": (1.0, 100.0)},
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-3}},
    ),
    FAMILY.program(
        "wine-raw",
        mlp,
        {"data": "wine", "width": 32},
        RAW,
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-3}},
    ),
    FAMILY.program(
        "cancer-feature-x10000",
        mlp,
        {"data": "breast_cancer", "width": 32},
        {"feature_scale": (1.0, 1e4)},
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-3}},
    ),
    FAMILY.program(
        "diabetes-targets-x1000",
        mlp,
        {"data": "diabetes", "depth": 2, "width": 32, "lr": 0.05},
        {"target_scale": (1.0, 1e3)},
        {"clipping": {"clip": 1.0}, "lr": {"lr": 5e-5}},
    ),
    FAMILY.program(
        "wine-raw-adam",
        mlp,
        {"data": "wine", "width": 32, **ADAM},
        RAW,
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-2}},
        severity="degraded",
        symptom="unstable",
    ),
    FAMILY.program(
        "digits-raw",
        mlp,
        {"width": 32},
        RAW,
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-2}},
        severity="degraded",
    ),
    FAMILY.program(
        "iris-raw",
        mlp,
        {"data": "iris", "width": 32},
        RAW,
        {"norm": {"norm": "batch"}, "lr": {"lr": 1e-2}},
        severity="degraded",
        symptom="unstable",
    ),
)
