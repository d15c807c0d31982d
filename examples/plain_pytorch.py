"""gradwatch in a plain PyTorch loop: one line to build the monitor, one line per step.

A small network learns handwritten digits with clipping. Of a run of 300 steps:

    Verdict   healthy: 300 steps, 3 layers, no alert
    Clipping  clipped 13% of 300 steps: max_norm 1 is 2.9 times their median norm 0.35
    0         Linear    median gradient norm 0.26
    2         Linear    median gradient norm 0.18
    4         Linear    median gradient norm 0.16
    accuracy  99.9%
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

import gradwatch as gw

parser = argparse.ArgumentParser(description="gradwatch in a plain PyTorch loop")
parser.add_argument("--steps", type=int, default=300)
parser.add_argument("--logdir", default="runs/plain_pytorch")
arguments = parser.parse_args()

torch.manual_seed(0)
torch.set_num_threads(1)  # a network this small is faster on one
images, labels = (torch.tensor(array) for array in load_digits(return_X_y=True))
images = (images.float() - 8) / 8  # pixels are 0 to 16

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
monitor = gw.Monitor(
    model,
    clip=gw.clipping.GlobalNorm(max_norm=1.0),
    sinks=[gw.sinks.Console(), gw.sinks.TensorBoard(arguments.logdir)],
)

for _ in range(arguments.steps):
    batch = torch.randint(len(labels), (128,))
    loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    monitor.step()  # the gradients are complete: measure, check, clip and log them
    optimizer.step()
monitor.close()

print(monitor.report())
for layer, norm in zip(monitor.layers, monitor.history.median()):
    print(f"{layer.name:<8}  {layer.kind:<8}  median gradient norm {norm:.2g}")
print(f"accuracy  {(model(images).argmax(dim=1) == labels).float().mean():.1%}")
print(f"tensorboard --logdir {arguments.logdir}")
