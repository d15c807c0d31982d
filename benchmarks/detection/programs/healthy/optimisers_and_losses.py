"""One perceptron, and everything that people vary about its training."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.plain import plain
from benchmarks.detection.recipes.speech import speech

row = group("optimisers-and-losses")
SGD = {"optimizer": "sgd", "lr": 0.1}
MOMENTUM = {"optimizer": "sgd", "lr": 0.05, "options": {"momentum": 0.9}}

PROGRAMS = (
    # Optimizers
    row("sgd", plain, "", **SGD),
    row("nesterov", plain, "", optimizer="sgd", lr=0.03, options={"momentum": 0.9, "nesterov": True}),
    row("adamw-decay", plain, "weights of pixels that are always 0 decay", raw=True, input_scale=1 / 16, lr=3e-3,
        optimizer="adamw", options={"weight_decay": 0.5}),
    row("nadam", plain, "", optimizer="nadam", lr=2e-3),
    row("rmsprop", plain, "", optimizer="rmsprop"),
    row("adagrad", plain, "", optimizer="adagrad", lr=0.03),
    row("adadelta", plain, "", optimizer="adadelta", lr=1.0),
    row("adafactor", plain, "steps relative to the weights (Shazeer and Stern 2018)", optimizer="adafactor", lr=3e-2),
    row("lion", plain, "steps by the sign alone (Chen 2023)", optimizer="lion", lr=1e-3, schedule="linear"),
    row("lars", plain, "steps relative to the weights (You 2017)", optimizer="lars", lr=0.1),
    row("lbfgs", plain, "several evaluations a step, the whole data", optimizer="lbfgs", lr=0.5, steps=40, batch=1797,
        options={"max_iter": 4, "history_size": 10}),
    # Sizes of the loss and of the batch
    row("loss-1e-4", plain, "Adam makes up for it", loss_weight=1e-4),
    row("loss-1e-8", plain, "Adam makes up for it where its eps is as small", loss_weight=1e-8,
        options={"eps": 1e-16}),
    row("loss-1e4", plain, "Adam makes up for it", loss_weight=1e4),
    row("loss-1e4-clipped", plain, "clipping makes up for it", loss_weight=1e4, clip=1.0, **SGD),
    row("loss-summed", plain, "over a batch of 64, at a learning rate of 1/64", loss="cross_entropy_sum",
        optimizer="sgd", lr=2e-3),
    row("loss-summed-256", plain, "over a batch of 256, under Adam", loss="cross_entropy_sum", batch=256, lr=3e-3),
    row("batch-1", plain, "noise: a norm that jumps by orders of magnitude", batch=1, optimizer="sgd", lr=0.01,
        steps=1500, width=32),
    row("batch-all", plain, "", batch=1797, steps=200, lr=5e-3, width=32),
    row("accumulated", plain, "four backward passes a step", accumulate=4, batch=16, steps=200, lr=3e-3),
    # Losses
    row("mean-square", plain, "of one-hot targets", loss="one_hot_mse", lr=3e-3),
    row("brier", plain, "the softmax is flat at first", loss="brier", lr=3e-3),
    row("binary", plain, "", loss="bce", lr=3e-3, data="breast_cancer"),
    row("hinge", plain, "no gradient at all where the margin is kept", loss="hinge", lr=3e-3),
    row("focal", plain, "the gradient falls with the square of the error", loss="focal", lr=3e-3),
    row("label-smoothing", plain, "", loss="label_smoothing", lr=3e-3),
    row("huber", plain, "limit: 1, diabetes by heart; a linear model gets 0.52", data="diabetes", loss="huber",
        lr=1e-2, batch=32, steps=500),
    row("ctc", speech, "mostly blanks at first", lr=1e-2, batch=32),
    # Schedules
    row("warm-up", plain, "the first steps do not move", warmup=60, lr=3e-3, depth=4),
    row("cosine-to-zero", plain, "the last steps do not move", schedule="cosine", **MOMENTUM),
    row("restarts", plain, "", schedule="restarts", lr=5e-3),
    row("one-cycle", plain, "", schedule="one_cycle", optimizer="sgd", lr=0.3),
    row("decimated", plain, "a tenth of the learning rate at each third", schedule="steps", lr=5e-3, batch=32),
    row("learning-rate-spike", plain, "20 times the learning rate for 3 steps; it recovers", schedule="spike",
        steps=500, **SGD),
    row("bad-batch", plain, "one batch of inputs 30 times too large; it recovers", bad_step=100),
    row("bad-batch-sgd", plain, "one batch of inputs 30 times too large; it recovers", bad_step=60, clip=5.0, **SGD),
    row("edge-of-stability", plain, "the whole data at a learning rate of 4: the loss goes up and down (Cohen 2021)",
        batch=1797, optimizer="sgd", lr=4.0, activation="tanh", loss="one_hot_mse", width=32, steps=400),
    row("clipped", plain, "every step is clipped", clip=0.1, optimizer="sgd", lr=1.0),
    # Nothing left to learn
    row("converged", plain, "cross entropy of 1e-7", data="wine", batch=178, lr=3e-2, steps=600),
    row("converged-iris", plain, "the gradient falls by orders of magnitude", data="iris", batch=16, lr=1e-2,
        steps=600, width=32),
    row("converged-squares", plain, "squared error of 1e-7", data="wine", loss="one_hot_mse", optimizer="lbfgs",
        lr=0.5, batch=178, steps=80, options={"max_iter": 4}),
    row("converged-digits", plain, "long after every digit is known by heart", lr=3e-3, batch=128, steps=900),
)  # fmt: skip
