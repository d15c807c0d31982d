"""A histogram of one large gradient, against SummaryWriter.add_histogram with its own bins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.growth import workload
from benchmarks.monitors import Gradwatch
from benchmarks.timing import cpu_ms, medians
from gradwatch.histograms import FIRST_NONFINITE, SHIFT, element_stats, log10_counts
from gradwatch.tags import HISTOGRAM_EDGES

ELEMENTS = 1024 * 2304
"""2.4 million, a weight of a transformer."""

QUANTILES = np.linspace(0.05, 0.95, 19)


def measure(elements: int, rounds: int, directory: Path) -> dict[str, float]:
    """CPU ms of both, in all and for binning alone, and how far off the quantiles are that both give.

    In all is what a sampled step of gradwatch costs more than another, with all it takes besides (zeros, largest,
    non-finite, parameter norm, update ratio), and what ``add_histogram`` costs until it is on the disk.
    """
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import histogram

    one = workload(1, elements)
    (parameter,) = one.parameters
    parameter.data.normal_(std=1e-2)  # no weight is all zero: gradwatch would look at every element again to be sure
    gradient = parameter.grad
    sampled, plain = Gradwatch(one, directory / "1", 1), Gradwatch(one, directory / "0", 0)
    writer = SummaryWriter(directory / "writer")

    def add_histogram() -> None:
        writer.add_histogram("gradient", gradient, 0)
        writer.flush()

    ms = medians(
        {
            "gradwatch": lambda: sampled.cost(5) - plain.cost(5),
            "add_histogram": lambda: cpu_ms(add_histogram),
            "gradwatch_binning": lambda: cpu_ms(lambda: log10_counts(element_stats(gradient).counts), times=5),
            "add_histogram_binning": lambda: cpu_ms(lambda: histogram("gradient", gradient, writer.default_bins)),
        },
        rounds,
        f"histogram of {elements:,}",
    )
    bins = np.asarray(writer.default_bins)
    for closed in (sampled, plain, writer):
        closed.close()
    return {
        "elements": elements,
        **{f"{title}_ms": value for title, value in ms.items()},
        **quantile_errors(bins[bins >= 0], elements),
    }


def quantile_errors(edges: np.ndarray, elements: int) -> dict[str, float]:
    """The largest relative error of p5 to p95 of normal magnitudes and of such as spread over ten decades.

    Args:
        edges: of add_histogram's bins.
        elements: how many are drawn.
    """
    worst: dict[str, float] = {}
    for gradient in (torch.randn(elements) * 1e-3, torch.randn(elements).mul(4).exp() * 1e-6):
        magnitudes = gradient.abs().numpy().astype(np.float64)
        exact = np.quantile(magnitudes, QUANTILES)
        counts = element_stats(gradient).counts
        found = {
            "quantile_error": quantiles(counts[:FIRST_NONFINITE], bit_edges()),
            "written_quantile_error": 10 ** quantiles(log10_counts(counts), HISTOGRAM_EDGES),
            "add_histogram_quantile_error": quantiles(np.histogram(magnitudes, edges)[0], edges),
        }
        for title, values in found.items():
            worst[title] = max(worst.get(title, 0.0), float(np.abs(values / exact - 1).max()))
    return worst


def bit_edges() -> np.ndarray:
    """Where gradwatch's bins begin: the float32 whose first bits are the bin's number."""
    return (np.arange(FIRST_NONFINITE + 1, dtype=np.uint32) << SHIFT).view(np.float32).astype(np.float64)


def quantiles(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """p5 to p95 as ``counts`` between ``edges`` tell them, evenly spread within a bin, as TensorBoard draws it."""
    below = np.append(0, np.cumsum(counts)) / counts.sum()
    return np.interp(QUANTILES, below, edges)
