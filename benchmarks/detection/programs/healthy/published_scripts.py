"""Scripts that people start from, small: pytorch/examples, PyTorch's tutorials, and a few others."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes import scripts
from benchmarks.detection.recipes.actor_critic import cart_pole, q_learning
from benchmarks.detection.recipes.graph import graph
from benchmarks.detection.recipes.plain import plain

row = group("published-scripts")
ADADELTA = {"optimizer": "adadelta", "lr": 1.0}

PROGRAMS = (
    row("mnist", scripts.mnist, "pytorch/examples", schedule="steps", steps=150, batch=32, **ADADELTA),
    row("mnist-rnn", scripts.mnist_rnn, "pytorch/examples", steps=250, **ADADELTA),
    row("word-language-model", scripts.word_language_model, "pytorch/examples: lr 20 with clipping; limit 0.9",
        optimizer="sgd", lr=20.0, clip=0.25, batch=20, schedule="linear", steps=250),
    row("time-sequence-prediction", scripts.time_sequence_prediction, "pytorch/examples: LBFGS in double precision",
        optimizer="lbfgs", lr=0.8, options={"max_iter": 2}, steps=50),
    row("super-resolution", scripts.super_resolution, "pytorch/examples; limit: 0.89 in four times the steps",
        lr=5e-3, steps=300, batch=32),
    row("regression", scripts.regression, "pytorch/examples", optimizer="sgd", lr=0.03, batch=32, steps=1000,
        schedule="linear"),
    row("gcn", graph, "pytorch/examples: inputs mostly 0, few labels", lr=1e-2, steps=200,
        options={"weight_decay": 5e-4}),
    row("gat", graph, "pytorch/examples", attention=True, lr=1e-2, steps=200),
    row("reinforce", cart_pole, "pytorch/examples: gradients that are mostly noise, of any sign", critic=False,
        lr=2e-2, steps=60),
    row("actor-critic", cart_pole, "pytorch/examples: spikes", lr=2e-2, steps=60),
    row("dqn", q_learning, "PyTorch's tutorial: mostly no reward, a target network", lr=3e-3, steps=400),
    row("cifar10", scripts.cifar10_tutorial, "PyTorch's tutorial: batches of 4", optimizer="sgd", lr=5e-3,
        options={"momentum": 0.9}, batch=4, steps=900),
    row("char-rnn", scripts.char_rnn, "PyTorch's tutorial: one name a step; limit: 0.98, naive Bayes",
        optimizer="sgd", lr=1.5e-2, steps=1800),
    row("logistic-regression", plain, "PyTorch's tutorial on nn: lr 0.5", depth=0, optimizer="sgd", lr=0.5, raw=True,
        input_scale=1 / 16),
    row("scikit-mlp", plain, "scikit-learn's MLPClassifier: one layer of 100, batches of 200, decay of 1e-4", depth=1,
        width=100, data="breast_cancer", batch=200, options={"weight_decay": 1e-4}),
    row("micrograd-moons", scripts.moons, "micrograd: hinge loss, lr from 1 down", optimizer="sgd", lr=1.0,
        schedule="linear", batch=100, steps=150),
    row("makemore", scripts.makemore, "makemore: tanh at a gain of 5/3, lr 0.1 and more; limit 0.9",
        optimizer="sgd", lr=0.3, batch=32, steps=500),
    row("wavenet", scripts.wavenet, "van den Oord 2016; limit 0.9", lr=5e-3, batch=16, steps=200),
    row("siren", scripts.siren, "Sitzmann 2020", lr=1e-3, batch=256),
    row("physics-informed", scripts.physics_informed, "losses of thousands at first (Raissi 2019)", lr=3e-3,
        batch=64, steps=500),
    row("deep-sets", scripts.deep_sets, "Zaheer 2017", lr=5e-3),
    row("sentiment", scripts.sentiment, "Keras: an embedding and an LSTM", lr=1e-2, steps=250, batch=32),
)  # fmt: skip
