"""Small transformers of published kinds.

At weights of standard deviation 0.02 attention is flat: queries, keys and positions have gradients orders of magnitude
below the others' until it is not, and the bias of the keys never has any.
"""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.language import left_to_right, masked, replaced, translated
from benchmarks.detection.recipes.transformer import transformer
from benchmarks.detection.recipes.vision import vision

row = group("small-transformers")
ADAMW = {"optimizer": "adamw", "lr": 1e-3, "batch": 16, "steps": 200}
SLOW = {**ADAMW, "lr": 3e-4, "steps": 300}
GPT = {"warmup": 20, "schedule": "cosine", "clip": 1.0, "options": {"betas": (0.9, 0.95), "weight_decay": 0.1}}
NEXT, TOPIC = "limit 0.9", "limit 0.8"

PROGRAMS = (
    # Left to right
    row("pre-2", left_to_right, NEXT, model={"depth": 2, "width": 64}, **SLOW),
    row("pre-4-warm-up", left_to_right, NEXT, model={"depth": 4, "width": 48}, **{**ADAMW, "steps": 150}, warmup=30),
    row("pre-8", left_to_right, NEXT, model={"depth": 8, "width": 32}, **{**ADAMW, "steps": 90, "batch": 8}),
    row("pre-2-wide", left_to_right, NEXT, model={"depth": 2, "width": 128, "heads": 8},
        **{**SLOW, "steps": 120, "batch": 8}),
    row("post-2", left_to_right, NEXT, model={"depth": 2, "post": True}, **SLOW, warmup=30),
    row("post-4", left_to_right, NEXT, model={"depth": 4, "width": 48, "post": True}, **{**ADAMW, "steps": 150}),
    row("post-6-warm-up", left_to_right, NEXT, model={"depth": 6, "width": 32, "post": True, "tied": False},
        **{**ADAMW, "steps": 110}, warmup=30),
    row("pytorch-default", left_to_right, "tied embedding of standard deviation 1: a loss of 30 at first; " + NEXT,
        model={"depth": 2, "std": None}, **ADAMW),
    row("nano-gpt", left_to_right, NEXT, model={"depth": 3, "width": 48}, **ADAMW, **GPT),
    row("llama", left_to_right, NEXT, model={"modern": True, "attention": "rotary", "tied": False}, **ADAMW, **GPT),
    # Masked
    row("bert", masked, TOPIC, model={"depth": 2, "post": True}, **ADAMW, warmup=20),
    row("bert-4-slow", masked, TOPIC, model={"depth": 4, "width": 48, "post": True}, **{**SLOW, "steps": 200}),
    row("albert", masked, "one block used three times; " + TOPIC,
        model={"depth": 3, "shared": True, "factor": 16, "post": True}, **{**ADAMW, "lr": 2e-3}),
    row("t5", masked, "relative positions that start at 0; " + TOPIC, model={"attention": "relative"}, **ADAMW),
    row("deberta", masked, "disentangled attention; " + TOPIC,
        model={"depth": 2, "attention": "disentangled", "post": True}, **ADAMW, warmup=20),
    row("electra", replaced, "a generator and a discriminator, a loss times 50 (Clark 2020); limit 0.98",
        model={"depth": 1, "width": 32}, **{**ADAMW, "lr": 3e-3, "steps": 320, "batch": 32}, schedule="linear"),
    # From one sequence to another, and images
    row("translator", translated, "PyTorch's own layers, LayerNorm after each sum", depth=1, width=48,
        optimizer="adam", lr=2e-3, batch=32, steps=250),
    row("vit", vision, "Dosovitskiy 2021", model="vit", depth=1, width=48, optimizer="adamw", lr=1e-3, batch=32,
        steps=350, warmup=20),
    row("swin", vision, "windows and position biases of 0 (Liu 2021)", model="swin", depth=2, width=32,
        optimizer="adamw", lr=3e-3, batch=32, steps=170),
    row("rows-pre-2", transformer, "", norm="pre", depth=2, width=32, optimizer="adamw", lr=1e-3, steps=250),
    row("rows-post-4", transformer, "", norm="post", depth=4, width=32, optimizer="adamw", lr=2e-3, warmup=30,
        steps=160),
)  # fmt: skip
