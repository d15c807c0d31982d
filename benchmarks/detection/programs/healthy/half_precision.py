"""Half precision done right."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.language import left_to_right
from benchmarks.detection.recipes.plain import plain
from benchmarks.detection.recipes.vision import vision

row = group("half-precision")
AMP = {"precision": "float16", "scaler": {"init_scale": 2.0**16}}
SKIPS = {"precision": "float16", "scaler": {"init_scale": 2.0**26}}
GROWS = {"precision": "float16", "scaler": {"init_scale": 2.0**14, "growth_interval": 20}}

PROGRAMS = (
    row("autocast-scaler", plain, "Micikevicius 2018", depth=3, **AMP),
    row("first-steps-skipped", plain, "the scale starts too high: the first steps are skipped by design", depth=4,
        **SKIPS),
    row("scale-grows", plain, "the scale doubles until a step overflows and is skipped, again and again", depth=3,
        lr=2e-3, **GROWS),
    row("cnn-first-steps-skipped", vision, "as above", model="vgg", depth=1, width=8, batch=16, steps=200, lr=3e-3,
        **SKIPS),
    row("transformer-scaler", left_to_right, "as above; limit 0.9", optimizer="adamw", batch=16, steps=130,
        model={"depth": 2, "width": 32}, **SKIPS),
    row("scaled-clipped", plain, "unscaled before clipping", depth=3, clip=1.0, optimizer="sgd", lr=0.1, **AMP),
    row("bfloat16-autocast", plain, "", depth=3, precision="bfloat16"),
    row("bfloat16-weights", plain, "steps below 1/256 of a weight are rounded away", depth=2, dtype="bfloat16"),
    row("float64", plain, "", depth=3, dtype="float64", optimizer="sgd", lr=0.1),
)  # fmt: skip
