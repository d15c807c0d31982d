"""Models of the data itself: two players, codes, densities."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.autoencoder import autoencoder
from benchmarks.detection.recipes.density import diffusion, flow
from benchmarks.detection.recipes.gan import gan

row = group("generative")
DCGAN = {"betas": (0.5, 0.999)}

PROGRAMS = (
    row("gan", gan, "neither loss falls (Goodfellow 2014)", lr=1e-3, steps=400, batch=128, options=DCGAN),
    row("gan-hinge", gan, "the discriminator's gradient comes and goes", objective="hinge", lr=2e-3, steps=400,
        batch=128, options=DCGAN),
    row("gan-gradient-penalty", gan, "second derivatives (Gulrajani 2017)", objective="gradient_penalty", lr=2e-3,
        generator_lr=0.2, steps=400, options={"betas": (0.5, 0.9)}),
    row("dcgan", gan, "compared with the mean image, 0, and other real images, 0.96", data="digits", width=12, lr=3e-3,
        generator_lr=1.5, steps=360, batch=32, options=DCGAN),
    row("autoencoder", autoencoder,
        "a narrow code; limit: 0.76 in four times the steps, 8 principal components get 0.53", sizes=(48, 8),
        lr=3e-3),
    row("autoencoder-deep", autoencoder, "a narrow code; limit: 0.76 in four times the steps", sizes=(64, 32, 16, 8),
        lr=3e-3, steps=400),
    row("autoencoder-sparse", autoencoder, "most units of the code end up at zero", sizes=(128,), sparsity=0.1),
    row("autoencoder-denoising", autoencoder, "limit: 0.84 in four times the steps", sizes=(64, 16), noise=0.5,
        lr=3e-3),
    row("vae", autoencoder, "noise in the code; limit: 0.66 in four times the steps", variational=True, sizes=(48, 8),
        lr=3e-3),
    row("vae-partly-collapsed", autoencoder, "7 of 24 codes follow the prior (Lucas 2019); limit: 0.66, as above",
        variational=True, sizes=(48, 24), lr=3e-3),
    row("vae-summed", autoencoder, "loss summed over the batch, as in pytorch/examples; limit: 0.66, as above",
        variational=True, sizes=(64, 8), summed=True, lr=2e-3),
    row("normalising-flow", flow, "layers that start as the identity: their first ones have no gradient",
        lr=5e-3, schedule="cosine", batch=128, depth=8, steps=400),
    row("diffusion", diffusion, "noise that cannot be predicted keeps the loss up; limit 0.6", lr=5e-3, batch=256,
        steps=500, schedule="cosine"),
)  # fmt: skip
