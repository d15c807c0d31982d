"""Programs: ALL = FAULTY + HEALTHY, one file for each family of faults."""

from benchmarks.detection.programs import (
    dead_relu,
    drawn,
    half_precision,
    high_lr,
    large_init,
    no_norm,
    no_residual,
    nonfinite,
    rnn_exploding,
    rnn_vanishing,
    saturated,
    sigmoid,
    subcritical,
    tiny_init,
    unscaled_data,
)
from benchmarks.detection.programs.healthy import PROGRAMS as CHOSEN_HEALTHY
from benchmarks.detection.task import Program

FAULTY: tuple[Program, ...] = (
    *sigmoid.PROGRAMS,
    *subcritical.PROGRAMS,
    *tiny_init.PROGRAMS,
    *no_residual.PROGRAMS,
    *rnn_vanishing.PROGRAMS,
    *large_init.PROGRAMS,
    *rnn_exploding.PROGRAMS,
    *high_lr.PROGRAMS,
    *no_norm.PROGRAMS,
    *unscaled_data.PROGRAMS,
    *half_precision.PROGRAMS,
    *dead_relu.PROGRAMS,
    *saturated.PROGRAMS,
    *nonfinite.PROGRAMS,
    *drawn.FAULTY,
)
HEALTHY: tuple[Program, ...] = (*CHOSEN_HEALTHY, *drawn.HEALTHY)
ALL: tuple[Program, ...] = FAULTY + HEALTHY

__all__ = ["ALL", "FAULTY", "HEALTHY"]
