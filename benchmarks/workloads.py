"""Four shapes of training step, from one that is all overhead to one that is all bandwidth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


@dataclass(frozen=True)
class Workload:
    """A model, its optimizer and a loss to call; ``step`` is one step of plain training."""

    name: str
    title: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[], Tensor]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def megabytes(self) -> float:
        return sum(p.numel() * p.element_size() for p in self.parameters) / 1e6

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss().backward()


def mlp() -> Workload:
    layers = [module for _ in range(12) for module in (nn.Linear(256, 256), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    for p in model.parameters():  # by torch's own start gradients vanish here, which costs judgements at every step
        if p.ndim == 2:
            nn.init.kaiming_normal_(p, nonlinearity="relu")
    x, y = torch.randn(64, 256), torch.randn(64, 256)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return Workload("W1", "MLP, 12 layers of 256", model, optimizer, lambda: F.mse_loss(model(x), y))


def resnet50() -> Workload:
    model = _ResNet50()
    x, y = torch.randn(4, 3, 64, 64), torch.randint(0, 1000, (4,))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return Workload("W2", "ResNet-50, batch 4 of 64x64", model, optimizer, lambda: F.cross_entropy(model(x), y))


def gpt2() -> Workload:
    model = _GPT2()
    tokens = torch.randint(0, 50257, (1, 129))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    return Workload("W3", "GPT-2 small, 1 x 128 tokens", model, optimizer, lambda: model(tokens))


def tiny() -> Workload:
    model = _Residual()
    x = torch.randn(16, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return Workload("W4", "500 residual Linear(16), 1,000 tensors", model, optimizer, lambda: model(x).square().mean())


ALL = {"W1": mlp, "W2": resnet50, "W3": gpt2, "W4": tiny}


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(500))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + 0.01 * layer(x)
        return x


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = ((inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in sizes)
        self.skip = nn.Sequential()
        if stride != 1 or inputs != 4 * width:
            self.skip.append(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)).append(nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            h = norm(conv(h))
            h = F.relu(h) if i < 2 else h
        return F.relu(h + self.skip(x))


class _ResNet50(nn.Sequential):
    """The shapes of torchvision's ResNet-50: 161 parameters, 25.6M elements (He et al., CVPR 2016)."""

    def __init__(self) -> None:
        blocks: list[nn.Module] = []
        inputs = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for i in range(count):
                blocks.append(_Bottleneck(inputs, width, stride if i == 0 else 1))
                inputs = 4 * width
        stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        super().__init__(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.mlp_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        qkv = self.c_attn(self.ln_1(x)).view(batch, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*qkv, is_causal=True).transpose(1, 2).reshape(batch, time, width)
        x = x + self.c_proj(attended)
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))


class _GPT2(nn.Module):
    """The shapes of GPT-2 small with tied embedding: 148 parameters, 124M elements (Radford et al., 2019)."""

    def __init__(self, vocabulary: int = 50257, width: int = 768, layers: int = 12) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(1024, width)
        self.h = nn.ModuleList(_Block(width, heads=12) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        x = self.wte(inputs) + self.wpe(torch.arange(inputs.shape[1]))
        for block in self.h:
            x = block(x)
        return F.cross_entropy(self.lm_head(self.ln_f(x)).flatten(0, 1), targets.flatten())
