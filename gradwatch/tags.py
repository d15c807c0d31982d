"""The names written into event files, shared by the sink that writes them and the plugin that reads them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

PLUGIN = "gradwatch"
"""Name of the TensorBoard plugin that owns the tensor summaries."""

FORMAT_VERSION = 1

CHUNK_STEPS = 4096
"""Steps under one tag. TensorBoard keeps a bounded sample of each tag and reads its metadata (the layer names) once,
so a new tag per chunk keeps every step readable and lets the set of layers change."""
CHUNK_BYTES = 2**26
"""What fewer steps have to do with: TensorBoard's data server sends at most 256 MB at once."""

OWN = f"{PLUGIN}/"
"""How every tag begins that the plugin owns."""
NORMS = "gradwatch/norms"
SAMPLED = "gradwatch/sampled"
UPDATE_RATIO = "gradwatch/update_ratio"
NO_GRADIENT = -1.0
"""Stands for "no gradient" in the norms tensor, where NaN, inf and 0 keep their own meaning."""

CLIP = "gradwatch/clip"
CLIP_NUMBERS = ("norm_before", "norm_after", "coefficient", "clipped", "threshold")
"""Of each record of what was clipped, in this order."""
PROFILE = "gradwatch/profile"
VERDICT = "gradwatch/verdict"

ALERT_LOG = "gradwatch/alert_log"

ALERTS = "gradwatch/alerts"
REPORT = "gradwatch/report"

TOTAL_NORM = "gradients/total_norm"
LOG10_MIN_NORM = "gradients/log10_min"
LOG10_MEDIAN_NORM = "gradients/log10_median"
LOG10_MAX_NORM = "gradients/log10_max"
SMALLEST_NORM = 1e-45
"""Stands for a norm of zero on a logarithmic axis: float32's smallest number."""
NONFINITE_LAYERS = "gradients/nonfinite_layers"
ALERT_COUNT = "gradients/alerts"
CLIP_COEFFICIENT = "gradients/clip_coefficient"
CLIPPED_NORM = "gradients/total_norm_clipped"
CLIP_RATE = "gradients/clip_rate"
PART_CLIP_RATE = "clip_rate"

LAYER_NORM = "grad_norm"
LAYER_HISTOGRAM = "grad_log10_abs"

HISTOGRAM_EDGES = np.linspace(-16.0, 4.0, 81)
"""Edges in log10 |gradient|: 80 buckets of a quarter decade, the outermost taking what lies beyond them."""


def chunk_tag(prefix: str, step: int, layers: Sequence[str] = ()) -> str:
    """Tag of a tensor over all layers: one per chunk of steps and set of layers.

    The set goes in as a checksum of its names, so that a run that goes on in the same directory, maybe with another
    model, never writes under names that are not its own.

    >>> chunk_tag(NORMS, 5000, ["fc1", "fc2"])
    'gradwatch/norms/cea367d4/000001'
    """
    return f"{prefix}/{_digest(tuple(layers))}/{step // chunk_steps(len(layers)):06d}"


def chunk_steps(layers: int) -> int:
    """Steps under one tag for so many layers.

    >>> chunk_steps(300), chunk_steps(20_000)
    (4096, 838)
    """
    return max(1, min(CHUNK_STEPS, CHUNK_BYTES // (4 * max(layers, 1))))


@lru_cache(maxsize=8)
def _digest(layers: tuple[str, ...]) -> str:
    return f"{zlib.crc32(json.dumps(layers).encode()):08x}"  # names may hold any character that would separate them


def block_tag(block: int, step: int) -> str:
    """Tag of a block of alerts, the first of them at ``step``: a resumed run begins with a block of its own.

    >>> block_tag(2, 5000)
    'gradwatch/alert_log/000005000/000002'
    """
    return f"{ALERT_LOG}/{step:09d}/{block:06d}"


def layer_tag(prefix: str, layer: str) -> str:
    r"""Tag of one layer's series, different for different names.

    TensorBoard groups by the first slash, so a slash in a name becomes a bar, and a bar, a percent sign and what cannot
    be printed are percent-encoded: ``urllib.parse.unquote(tag.replace("|", "/"))`` gives the name back.

    >>> layer_tag(LAYER_NORM, "block/0 ü"), layer_tag(LAYER_NORM, "a|b\n")
    ('grad_norm/block|0 ü', 'grad_norm/a%7Cb%0A')
    """
    name = layer.translate(_TAG)
    return f"{prefix}/{name if name.isprintable() else ''.join(c if c.isprintable() else _percent(c) for c in name)}"


def printable(text: str) -> str:
    r"""``text`` on one line, with the escapes of Python for what a terminal would obey rather than show.

    Names of layers may hold any character but a dot: line ends, escape sequences, marks that turn the direction of
    writing.

    >>> print(printable("fc\x1b[31m\n: dead, ü"))
    fc\x1b[31m\n: dead, ü
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


_TAG = str.maketrans({"/": "|", "|": _percent("|"), "%": _percent("%")})
