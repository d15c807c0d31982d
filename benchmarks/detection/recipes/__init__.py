"""Recipes: functions from settings to a Task, one for each base model, healthy by default."""

from benchmarks.detection.recipes.cnn import cnn
from benchmarks.detection.recipes.mlp import mlp
from benchmarks.detection.recipes.rnn import rnn
from benchmarks.detection.recipes.transformer import transformer
from benchmarks.detection.recipes.undefined import undefined

__all__ = ["cnn", "mlp", "rnn", "transformer", "undefined"]
