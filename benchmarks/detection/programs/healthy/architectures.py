"""Feed-forward networks of many kinds, on the digits."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.cnn import cnn
from benchmarks.detection.recipes.plain import plain
from benchmarks.detection.recipes.residual import residual
from benchmarks.detection.recipes.unet import unet
from benchmarks.detection.recipes.vision import vision

row = group("architectures")
CRITICAL = "depth alone is no fault where the signal keeps its size: "

PROGRAMS = (
    # Branches that are silent at first
    row("rezero", residual, "branches times 0: no gradient at first (Bachlechner 2020)", branch="rezero", depth=12),
    row("skip-init", residual, "branches times 0 (De and Smith 2020)", branch="skip_init", depth=6, lr=2e-3),
    row("layer-scale", residual, "branches times 1e-6 (Touvron 2021)", branch="layer_scale", depth=6),
    row("last-layer-zero", residual, "the branches' first layers have no gradient at first (Fixup, Zhang 2019)",
        branch="zero_last", depth=10, optimizer="sgd", lr=0.05),
    row("highway", residual, "gates that start shut (Srivastava 2015)", branch="highway", depth=8),
    row("stochastic-depth", residual, "a block that was left out has no gradient (Huang 2016)",
        branch="stochastic_depth", depth=6),
    row("pre-norm", residual, "sums grow from block to block", branch="pre_norm", depth=6),
    # Depth
    row("residual-50", residual, CRITICAL + "50 layers in 25 branches, the last of each 0 (Zhang 2019)",
        branch="zero_last", depth=25, width=32, lr=2e-3, steps=180),
    row("tanh-orthogonal-30", plain, CRITICAL + "Saxe 2014", depth=30, width=48, activation="tanh", init="orthogonal",
        bias=0.0, optimizer="sgd", lr=0.05, steps=250),
    row("selu-20", plain, CRITICAL + "Klambauer 2017", depth=20, activation="selu", init="lecun", bias=0.0,
        optimizer="sgd", lr=0.02),
    row("relu-he-12", plain, CRITICAL + "He 2015", depth=12, init="he", bias=0.0, optimizer="sgd", lr=0.05),
    row("layer-norm-12", plain, CRITICAL + "Ba 2016", depth=12, norm="layer", lr=3e-3),
    row("batch-norm-8", plain, "gradients grow towards the input (Yang 2019), and the bias has none", depth=8,
        norm="batch", optimizer="sgd", lr=0.1),
    row("pytorch-default-5", plain, "PyTorch's initialisation shrinks the gradient by 1/sqrt(6) a layer", depth=5,
        lr=2e-3),
    # Widths, activations, sparsity
    row("narrow-6", plain, "6 units a layer", depth=2, width=6, lr=1e-2, steps=500),
    row("wide-512", plain, "one wide layer", depth=1, width=512, optimizer="sgd", lr=0.05, batch=32),
    row("sigmoid-1", plain, "one sigmoid layer is no deep one", depth=1, activation="sigmoid", lr=1e-2),
    row("sigmoid-2-batch-norm", plain, "sigmoids kept in their middle", depth=2, activation="sigmoid", norm="batch",
        lr=1e-2),
    row("gelu-4", plain, "", depth=4, activation="gelu", batch=32),
    row("relu-80-percent-zero", plain, "biases of -1: 4 of 5 units are zero for any one example", depth=1, width=256,
        init="he", bias=-1.0),
    row("relu-95-percent-zero", plain, "biases of -2: 19 of 20 units are zero for any one example", depth=1, width=512,
        init="he", bias=-2.0),
    row("dropout-half", plain, "half of all units are zero", depth=2, width=128, dropout=0.5, lr=2e-3),
    # Inputs
    row("blank-pixels", plain, "pixels that are always 0 have no gradient", raw=True, input_scale=1 / 16, lr=3e-3),
    row("raw-inputs", plain, "inputs from 0 to 16 under Adam", raw=True, width=32),
    row("two-features", plain, "", data="circles", activation="tanh", lr=1e-2, width=32),
    # Convolutions
    row("cnn", cnn, "", lr=0.1, channels=8, depth=3, batch=32),
    row("vgg", vision, "BatchNorm takes the convolutions' biases out again: their gradients are rounding errors",
        model="vgg", depth=1, width=8, steps=250, batch=32, lr=3e-3),
    row("resnet", vision, "the last BatchNorm of each branch is 0 at first (Goyal 2017)", model="resnet", depth=1,
        width=8, steps=200, batch=32, lr=2e-2, schedule="cosine"),
    row("convnext", vision, "layer scale of 1e-6, weights of 0.02 (Liu 2022)", model="convnext", depth=3, width=24,
        optimizer="adamw", lr=4e-3, steps=200, batch=32),
    row("group-norm", vision, "", model="group_norm", depth=2, width=12, lr=2e-2, steps=300, batch=32),
    row("densenet", vision, "", model="densenet", depth=4, width=8, lr=2e-2, steps=200, batch=32,
        schedule="cosine"),
    row("mobilenet", vision, "depthwise convolutions and gates", model="mobilenet", depth=2, width=8, lr=1e-2,
        steps=150, batch=32, schedule="one_cycle"),
    row("mixer", vision, "", model="mixer", depth=2, width=24, lr=3e-3, steps=250, batch=32),
    row("unet-segment", unet, "limit: 0.78, in four times the steps", width=6, lr=5e-3, steps=180, batch=16),
    row("unet-denoise", unet, "squared errors of 0.01 have small gradients; limit: 0.88, in four times the steps",
        segment=False, width=6, lr=5e-3, steps=180, batch=16),
)  # fmt: skip
