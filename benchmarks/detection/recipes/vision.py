"""Published architectures for images, small: the digits are their images of 8 x 8 pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.detection.data import Data, packaged
from benchmarks.detection.recipes.attention import Attention, RelativeAttention
from benchmarks.detection.recipes.loops import supervised
from benchmarks.detection.recipes.residual import Added, Scaled
from benchmarks.detection.task import Task


def vision(
    seed: int,
    *,
    model: str = "resnet",
    depth: int = 2,
    width: int = 16,
    **loop: Any,
) -> Task:
    """One of ``MODELS`` on the digits.

    Args:
        seed: of weights and batches.
        model: its name.
        depth: blocks, per stage where there are several.
        width: channels of the first stage, or features of each token.
        loop: see ``Loop``.
    """
    torch.manual_seed(seed)
    digits = packaged("digits")
    images = Data(digits.x.view(-1, 1, 8, 8), digits.y, digits.outputs)
    network = MODELS[model](depth, width)
    return supervised(network, images, seed, **loop, measured=160)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, **options)


def _head(width: int, norm: bool = False) -> list[nn.Module]:
    return [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *([nn.LayerNorm(width)] if norm else []),
        nn.Linear(width, 10),
    ]


def resnet(depth: int, width: int, zero_init: bool = True) -> nn.Module:
    """Post-activation blocks whose last BatchNorm starts at zero (He et al., 2016; Goyal et al., 2017)."""
    model = nn.Sequential(convolution(1, width, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    for stage, channels in enumerate((width, 2 * width)):
        for i in range(depth):
            inputs, stride = (width, 2) if stage and not i else (channels, 1)
            last = nn.BatchNorm2d(channels)
            if zero_init:
                nn.init.zeros_(last.weight)
            branch = nn.Sequential(
                convolution(inputs, channels, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                convolution(channels, channels, bias=False),
                last,
            )
            model.append(Added(branch) if stride == 1 else Down(branch, inputs, channels)).append(nn.ReLU())
    return model.extend(_head(2 * width))


class Down(nn.Module):
    """A residual block that halves the image, with a convolution on the skip connection."""

    def __init__(self, branch: nn.Module, inputs: int, channels: int) -> None:
        super().__init__()
        self.branch = branch
        self.skip = nn.Conv2d(inputs, channels, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + self.skip(x)


def vgg(depth: int, width: int) -> nn.Module:
    """Plain convolutions with a bias, which BatchNorm after them takes out again (Simonyan and Zisserman, 2015)."""
    model = nn.Sequential()
    for stage, channels in enumerate((width, 2 * width)):
        for i in range(depth):
            inputs = (width if stage else 1) if not i else channels
            model.extend([convolution(inputs, channels), nn.BatchNorm2d(channels), nn.ReLU()])
        model.append(nn.MaxPool2d(2))
    return model.extend([nn.Flatten(), nn.Linear(8 * width, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10)])


def group_norm(depth: int, width: int) -> nn.Module:
    """Wu and He, 2018."""
    model = nn.Sequential(convolution(1, width))
    for _ in range(depth):
        model.extend([convolution(width, width), nn.GroupNorm(4, width), nn.SiLU()])
    return model.extend(_head(width))


def convnext(depth: int, width: int) -> nn.Module:
    """Patches of 2 x 2, then depthwise blocks with a layer scale of 1e-6 (Liu et al., 2022)."""
    model = nn.Sequential(nn.Conv2d(1, width, 2, 2), ChannelNorm(width))
    for _ in range(depth):
        branch = nn.Sequential(
            convolution(width, width, groups=width),
            ChannelNorm(width),
            nn.Conv2d(width, 4 * width, 1),
            nn.GELU(),
            nn.Conv2d(4 * width, width, 1),
        )
        model.append(Scaled(branch, torch.full((width, 1, 1), 1e-6)))
    model.extend(_head(width, norm=True))
    return _truncated_normal(model)


class DenseLayer(nn.Module):
    """A layer whose input is kept beside its output (Huang et al., 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.activation = nn.BatchNorm2d(inputs), nn.ReLU()
        self.conv = convolution(inputs, growth, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.activation(self.norm(x)))], dim=1)


def densenet(depth: int, width: int) -> nn.Module:
    model = nn.Sequential(convolution(1, width, bias=False))
    model.extend(DenseLayer(width + 8 * i, 8) for i in range(depth))
    return model.extend([nn.BatchNorm2d(width + 8 * depth), nn.ReLU(), *_head(width + 8 * depth)])


class SqueezeExcite(nn.Module):
    """Channels weighed by a gate that sees all of them (Hu et al., 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.ReLU())
        self.excite = nn.Sequential(nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x))


def mobilenet(depth: int, width: int) -> nn.Module:
    """Inverted bottlenecks with squeeze and excitation (Howard et al., 2019)."""
    model = nn.Sequential(convolution(1, width, bias=False), nn.BatchNorm2d(width), nn.Hardswish())
    for _ in range(depth):
        wide = 3 * width
        branch = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            convolution(wide, wide, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            SqueezeExcite(wide),
            nn.Conv2d(wide, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        model.append(Added(branch))
    return model.extend(_head(width))


class TokenBlock(nn.Module):
    """Pre-norm attention and two linear layers, of a vision transformer."""

    def __init__(self, width: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm_1, self.attention = nn.LayerNorm(width), attention
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class Patches(nn.Module):
    """Patches of 2 x 2 pixels as 16 tokens, with a class token and positions of standard deviation 0.02."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 17, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1) + self.pos_embed


class First(nn.Module):
    """The first token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


def vit(depth: int, width: int) -> nn.Module:
    """Dosovitskiy et al., 2021."""
    model = nn.Sequential(Patches(width))
    model.extend(TokenBlock(width, Attention(width, 4)) for _ in range(depth))
    return _truncated_normal(model.extend([nn.LayerNorm(width), First(), nn.Linear(width, 10)]))


class WindowAttention(nn.Module):
    """Attention within windows of 2 x 2 tokens, of an image that may be shifted first (Liu et al., 2021)."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.attention = RelativeAttention(width, heads, 4)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        side = round(x.shape[1] ** 0.5)
        image = x.unflatten(1, (side, side)).roll((-self.shift, -self.shift), (1, 2))
        windows = image.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
        mixed = self.attention(windows.flatten(3, 4)).unflatten(3, (2, 2)).transpose(2, 3)
        return mixed.flatten(3, 4).flatten(1, 2).roll((self.shift, self.shift), (1, 2)).flatten(1, 2)


class MergePatches(nn.Module):
    """2 x 2 tokens become one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        side = round(x.shape[1] ** 0.5)
        image = x.view(len(x), side // 2, 2, side // 2, 2, -1).transpose(2, 3)
        return self.reduce(self.norm(image.flatten(3).flatten(1, 2)))


class Tokens(nn.Module):
    """Patches of 2 x 2 pixels as 16 tokens, without positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(1, width, 2, 2), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.embed(x).flatten(2).transpose(1, 2))


class Mean(nn.Module):
    """The mean over all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def swin(depth: int, width: int) -> nn.Module:
    """4 x 4 tokens in shifted windows, then 2 x 2 of twice the width in one."""
    model = nn.Sequential(Tokens(width))
    model.extend(TokenBlock(width, WindowAttention(width, 2, shift=i % 2)) for i in range(depth))
    model.append(MergePatches(width))
    model.extend(TokenBlock(2 * width, WindowAttention(2 * width, 4, shift=0)) for _ in range(depth))
    return _truncated_normal(model.extend([nn.LayerNorm(2 * width), Mean(), nn.Linear(2 * width, 10)]))


class Mixed(nn.Module):
    """Two linear layers over the tokens, then over the features (Tolstikhin et al., 2021)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 2 * tokens), nn.GELU(), nn.Linear(2 * tokens, tokens))
        self.features = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm_1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.features(self.norm_2(x))


def mixer(depth: int, width: int) -> nn.Module:
    model = nn.Sequential(Patches(width))
    model.extend(Mixed(17, width) for _ in range(depth))
    return model.extend([nn.LayerNorm(width), Mean(), nn.Linear(width, 10)])


def _truncated_normal(model: nn.Module) -> nn.Module:
    """Standard deviation 0.02 and biases of zero, as vision transformers and ConvNeXt start."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


MODELS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "resnet": resnet,
    "vgg": vgg,
    "group_norm": group_norm,
    "convnext": convnext,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "vit": vit,
    "swin": swin,
    "mixer": mixer,
}
