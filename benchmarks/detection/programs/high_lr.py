"""Learning rates beyond what the loss's curvature allows."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import cnn, mlp, rnn, transformer

FAMILY = Family("high-lr", "unstable", "lr", "LeCun et al. 1998: gradient descent diverges for lr > 2 / lambda_max")

PROGRAMS = (
    FAMILY.program(  # the largest eigenvalue of this loss's Hessian is 8.05: lr > 0.249 diverges, here 1.4-fold a step
        "linear",
        mlp,
        {"data": "diabetes", "depth": 0, "batch": 442},
        {"lr": (0.05, 0.3)},
        {"clipping": {"clip": 1.0}},
        layers="head",
    ),
    FAMILY.program(
        "mlp-4",
        mlp,
        {},
        {"lr": (0.1, 1.5)},
        {"norm": {"norm": "batch"}, "clipping": {"clip": 0.1}},
    ),
    FAMILY.program(
        "mlp-6-momentum",
        mlp,
        {"depth": 6, "options": {"momentum": 0.95}},
        {"lr": (0.005, 0.1)},
        {"norm": {"norm": "batch"}, "warmup": {"warmup": 100}},
    ),
    FAMILY.program(
        "mlp-4-adam",
        mlp,
        {"optimizer": "adam"},
        {"lr": (1e-3, 0.2)},
        {"norm": {"norm": "batch"}, "clipping": {"clip": 1.0}},
    ),
    FAMILY.program(
        "cnn-4",
        cnn,
        {"batch": 32},
        {"lr": (0.1, 1.2)},
        {"norm": {"norm": "batch"}, "warmup": {"warmup": 100}},
    ),
    FAMILY.program(
        "mlp-6-adam",
        mlp,
        {"depth": 6, "optimizer": "adam"},
        {"lr": (1e-3, 0.06)},
        {"norm": {"norm": "batch"}, "clipping": {"clip": 1.0}},
        severity="degraded",
    ),
    FAMILY.program(
        "transformer-2",
        transformer,
        {"batch": 16},
        {"lr": (3e-3, 0.06)},
        {"warmup": {"warmup": 100}, "clipping": {"clip": 1.0}},
        severity="degraded",
    ),
    FAMILY.program(  # Xiong et al. 2020: at the start the gradients near the output of a post-LN transformer are large
        "post-ln-5",
        transformer,
        {"depth": 5, "width": 24, "batch": 16, "norm": "post", "steps": 150},
        {"lr": (1e-3, 8e-3)},
        {"norm": {"norm": "pre"}, "warmup": {"warmup": 80}},
        severity="degraded",
    ),
    FAMILY.program(
        "rnn-tanh",
        rnn,
        {"cell": "tanh", "radius": 1.5, "length": 20, "batch": 32},
        {"lr": (0.05, 0.2)},
        {"clipping": {"clip": 0.3}, "init_scale": {"radius": 1.0}},
        severity="degraded",
    ),
    FAMILY.program(  # three steps at a learning rate of 3, as of a schedule read in the wrong unit
        "shock",
        mlp,
        {"optimizer": "adam", "lr": 1e-3},
        {"schedule": ("constant", "shock")},
        {"norm": {"norm": "batch"}, "clipping": {"clip": 1.0}},
    ),
    FAMILY.program(
        "shock-mild",
        mlp,
        {"optimizer": "adam", "lr": 1e-3},
        {"schedule": ("constant", "mild_shock")},
        {"norm": {"norm": "batch"}, "clipping": {"clip": 1.0}},
        severity="degraded",
    ),
)
