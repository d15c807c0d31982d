"""Networks of which a part does not learn, by design."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.finetune import finetune
from benchmarks.detection.recipes.moe import moe
from benchmarks.detection.recipes.multitask import distillation, multitask

row = group("partly-frozen")

PROGRAMS = (
    row("lora", finetune, "B = 0: A has no gradient at first (Hu 2022)", method="lora", lr=3e-3),
    row("lora-sgd", finetune, "the same, and A hardly moves before B has", method="lora", optimizer="sgd", lr=0.01,
        options={"momentum": 0.9}),
    row("adapter", finetune, "the last layer is 0 (Houlsby 2019)", method="adapter", lr=3e-3),
    row("head-only", finetune, "all but the last layer held; limit: 0.99, a linear model of those features",
        method="head", lr=3e-2, schedule="cosine", steps=400),
    row("last-layers", finetune, "two of four layers held", method="last_layers", lr=3e-3),
    row("first-layer-held", finetune, "", method="first_held", lr=2e-3, optimizer="adamw"),
    row("biases-only", finetune, "Ben Zaken 2022", method="biases", lr=2e-2),
    row("gradual", finetune, "layers that join late (Howard and Ruder 2018)", method="gradual", lr=2e-3),
    row("idle-expert-skipped", moe, "an expert without examples has no gradient at all", idle=1, lr=3e-3),
    row("idle-expert-zero", moe, "two experts without examples have gradients of 0", idle=2, skipped=False, lr=3e-3),
    row("experts-top-2", moe, "who is preferred changes", idle=0, top=2, experts=6, lr=3e-3, batch=16),
    row("unused-head", multitask, "no loss sees it", unused=True, lr=2e-3),
    row("faint-task", multitask, "a head of which the loss counts a millionth", weights={"digit": 1.0, "odd": 1e-6},
        lr=2e-3),
    row("loud-task", multitask, "squared errors in the thousands beside cross entropy",
        weights={"digit": 1.0, "ink": 1e-4}, lr=3e-3),
    row("deep-supervision", multitask, "", deep=True, lr=2e-3),
    row("distilled", distillation, "the teacher is held", lr=3e-3),
)  # fmt: skip
