"""Programs that train as well as their model and budget can, and that no detector may flag.

An accuracy is compared with 1, an R^2 with 1 and 0, unless the program's ``source`` names another limit.
"""

from __future__ import annotations

from benchmarks.detection.programs.healthy import (
    architectures,
    deep,
    forecasts,
    generative,
    half_precision,
    optimisers_and_losses,
    partly_frozen,
    published_scripts,
    recurrent,
    small_transformers,
    sparse,
    without_labels,
)

PROGRAMS = (
    *architectures.PROGRAMS,
    *deep.PROGRAMS,
    *forecasts.PROGRAMS,
    *generative.PROGRAMS,
    *half_precision.PROGRAMS,
    *optimisers_and_losses.PROGRAMS,
    *partly_frozen.PROGRAMS,
    *published_scripts.PROGRAMS,
    *recurrent.PROGRAMS,
    *small_transformers.PROGRAMS,
    *sparse.PROGRAMS,
    *without_labels.PROGRAMS,
)
