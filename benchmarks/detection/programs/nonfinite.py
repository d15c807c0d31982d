"""Operations that give NaN or inf at some input, forward, or in their derivative alone."""

from benchmarks.detection.programs.family import Family
from benchmarks.detection.recipes import mlp, undefined

FAMILY = Family(
    "nonfinite", "nonfinite", "eps", "calculus: log 0, 0/0, exp(89) in float32, the derivative of a root at 0"
)
EPS = {"eps": (1e-3, 0.0)}
SLOWER, CLIPPED = {"lr": {"lr": 1e-3}}, {"clipping": {"clip": 1.0}}

PROGRAMS = (
    FAMILY.program("log", undefined, {"operation": "log"}, EPS, {**SLOWER, **CLIPPED}),
    FAMILY.program("share", undefined, {"operation": "share", "lr": 0.3}, EPS, {**SLOWER, **CLIPPED}),
    FAMILY.program("spread", undefined, {"operation": "spread", "lr": 0.3}, EPS, {**SLOWER, **CLIPPED}, layers="weigh"),
    FAMILY.program("length", undefined, {"operation": "length", "lr": 0.3}, EPS, {**SLOWER, **CLIPPED}, layers="weigh"),
    FAMILY.program("masked-root", undefined, {"operation": "masked_root"}, EPS, {**SLOWER, **CLIPPED}, layers="weigh"),
    FAMILY.program(
        "softmax",
        mlp,
        {"input_scale": 20.0, "lr": 0.01},
        {"loss": ("cross_entropy", "softmax_by_hand")},
        {"data_scaling": {"input_scale": 1.0}, "lr": {"lr": 1e-3}},
        cause="architecture",
    ),
)
