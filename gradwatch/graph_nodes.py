"""What the names of autograd nodes stand for."""

from __future__ import annotations

import math
from collections.abc import Mapping

_NAMES = {
    "activation": "Celu Clamp ClampMax ClampMin Elu Erf Gelu Glu Hardshrink Hardsigmoid Hardswish Hardtanh LeakyRelu "
    "LogSigmoid Mish PreluKernel Relu RreluWithNoise Sigmoid Silu Sin Cos Softplus Softshrink Tanh Threshold",
    "weight": "Addbmm Addmm Addmv Baddbmm Bmm Convolution CudnnConvolution Linear MiopenConvolution MkldnnConvolution "
    "MkldnnLinear Mm MpsConvolution Mv SlowConvTranspose2D ThnnConvDepthwise2D",
    "norm": "BatchNormImplIndex CudnnBatchNorm FusedRmsNorm MiopenBatchNorm NativeBatchNorm NativeGroupNorm "
    "NativeLayerNorm",
    "attention": "SafeSoftmax ScaledDotProductCudnnAttention ScaledDotProductEfficientAttention "
    "ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu "
    "ScaledDotProductFusedAttentionOverrideable Softmax",
    "add": "Add Rsub Sub",
    "multiply": "Div Mul",
    "pool": "AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D Amax Amin AvgPool2D AvgPool3D Max "
    "MaxPool2D MaxPool2DWithIndices MaxPool3DWithIndices Mean MkldnnAdaptiveAvgPool2D MkldnnMaxPool2D Sum "
    "UpsampleBicubic2D UpsampleBilinear2D UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D",
    "shape": "Alias AsStrided Cat Clone ConstantPadNd Contiguous CopySlices Expand Flip Gather Index IndexSelect "
    "Permute Repeat Reshape ReshapeAlias Roll Select Slice Split SplitWithSizes Squeeze Stack T ToCopy Transpose "
    "Unbind UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze View _DDPSink",
    "dropout": "FusedDropout NativeDropout",
    "loss": "BinaryCrossEntropy BinaryCrossEntropyWithLogits CtcLoss HuberLoss KlDiv L1Loss LogSoftmax MseLoss NllLoss "
    "NllLoss2D SmoothL1Loss SoftMarginLoss",
    "embedding": "Embedding EmbeddingBag",
    "leaf": "AccumulateGrad",
    "parallel": "Checkpoint CompiledFunction CudnnRnn MiopenRnn MkldnnRnnLayer",
}
_KIND: Mapping[str, str] = {name: kind for kind, names in _NAMES.items() for name in names.split()}

TRANSPOSING = frozenset({"Permute", "T", "Transpose"})

PRESERVING = TRANSPOSING | {
    *("Alias", "Clone", "Contiguous", "Reshape", "ReshapeAlias", "Squeeze", "ToCopy", "UnsafeView", "Unsqueeze", "View")
}
"""What leaves the norm of a gradient as it is: the same elements in another order, shape or precision."""

FACTORS: Mapping[str, tuple[int, int]] = {
    "Addbmm": (1, 2),
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Baddbmm": (1, 2),
    **{name: (0, 1) for name in _NAMES["weight"].split() if not name.startswith(("Add", "Badd"))},
}
"""Which inputs of a product are its two factors; that of a layer comes first, then its weight."""

NORMALISED = frozenset(_NAMES["norm"].split())
"""Nodes whose first input is data."""

LARGEST_SLOPE: Mapping[str, float] = {
    **{name: 1.0 for name in _NAMES["activation"].split() if name != "Glu"},
    "Erf": 2 / math.sqrt(math.pi),
    "Gelu": 1.1289,
    "Hardsigmoid": 1 / 6,
    "Hardswish": 1.5,
    "Mish": 1.0885,
    "Sigmoid": 0.25,
    "Silu": 1.0998,
}
"""Of each element-wise activation the largest magnitude that its derivative has, at its default settings."""

UNSEEN: Mapping[str, str] = {
    "Checkpoint": "a reentrant checkpoint runs its part of the model again in the backward pass",
    "CompiledFunction": "compiled code is one operation to autograd",
    "CudnnRnn": "a fused kernel runs all time steps at once",
    "MiopenRnn": "a fused kernel runs all time steps at once",
    "MkldnnRnnLayer": "a fused kernel runs all time steps at once",
}
"""Nodes that stand for many operations, and why these cannot be told apart."""


def base_name(node: str) -> str:
    """The operation's name in that of its node.

    >>> (
    ...     base_name("AddmmBackward0"),
    ...     base_name("torch::autograd::AccumulateGrad"),
    ...     base_name("CheckpointFunctionBackward"),
    ... )
    ('Addmm', 'AccumulateGrad', 'Checkpoint')
    """
    name = node.rpartition("::")[2]
    base = name.rpartition("Backward")[0] or name
    return "Checkpoint" if base == "CheckpointFunction" else base


def kind_of(name: str) -> str:
    """One of :class:`~gradwatch.profile.Operation`'s kinds; "other" for a name that is not known.

    >>> kind_of("Relu"), kind_of("MyOwnFunction")
    ('activation', 'other')
    """
    return _KIND.get(name, "other")
