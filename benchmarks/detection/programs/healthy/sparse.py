"""Embeddings of which a step touches few rows, tied weights."""

from __future__ import annotations

from benchmarks.detection.programs.healthy.rows import group
from benchmarks.detection.recipes.embedding import bag_of_words, ratings, skip_gram, wide_and_deep
from benchmarks.detection.recipes.scripts import word_language_model

row = group("sparse")

PROGRAMS = (
    row("bag-of-words", bag_of_words, "9 of 10 rows have a gradient of 0 at any step", lr=1e-2, steps=250),
    row("bag-of-words-sparse", bag_of_words, "sparse gradients, SGD at 2", optimizer="sgd", lr=2.0, sparse=True),
    row("bag-of-words-decayed", bag_of_words, "rows that are not used decay", optimizer="adamw", lr=1e-2, batch=16,
        options={"weight_decay": 0.1}, steps=250),
    row("skip-gram", skip_gram, "the second table is 0 at first (Mikolov 2013)", optimizer="adagrad", lr=0.5, batch=16),
    row("skip-gram-sparse", skip_gram, "sparse gradients", optimizer="sparse_adam", lr=2e-2, sparse=True, batch=16),
    row("ratings", ratings, "two rows in hundreds per example", lr=2e-2, batch=128),
    row("ratings-sgd", ratings, "at a learning rate of 5", optimizer="sgd", lr=5.0, batch=256),
    row("wide-and-deep", wide_and_deep, "a part that is 0 at first", optimizer="adagrad", lr=0.1),
    row("word-model-untied", word_language_model, "limit 0.9", tied=False, lr=5e-3, batch=20, clip=1.0),
)  # fmt: skip
