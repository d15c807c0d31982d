"""Residual branches that accumulate: each block adds more than it is given, so that blocks multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.diagnosis.account import account
from gradwatch.diagnosis.start import first_update, signal
from gradwatch.diagnosis.symptoms import UNSTABLE, told
from gradwatch.diagnosis.words import changes, mean_gain, span
from gradwatch.history import History
from gradwatch.patterns import check_number
from gradwatch.profile import SEVERE, BackwardProfile
from gradwatch.records import Alert, Diagnosis
from gradwatch.verdict import counted


@dataclass(frozen=True)
class ResidualBranches:
    """The gradient explodes in residual blocks: each multiplies it by 1 + b, where b is its branch's squared gain.

    Over L blocks that is (1 + b)^L, which stays below e where b is 1/L at most.

    Args:
        min_share: least share of the total log gain that is worth a diagnosis.
        min_log_gain: least log squared gain of all blocks together.
        usual: squared gain up to which a branch is as large as they are made: what is missing then is a normalisation.
        throws: ``|step| / |parameters|`` of a first step that explains it as well.

    Raises:
        ValueError: when an argument is out of range.

    Example:
        >>> from gradwatch.profile import Branch, Segment
        >>> block = Segment("block", "residual", "Add", 101.0, 1.0, skip=1.0, branches=(Branch(100.0),))
        >>> alerts = [Alert(0, "exploding", "block", 2, 1e4, 1e3, "")]
        >>> found = ResidualBranches().explain(History(), BackwardProfile((block,) * 4), alerts)
        >>> print(found.remedy.partition(";")[0])
        multiply the output of each residual branch in block by 0.05, so that all 4 blocks together pass e

    Source: Hayou et al., AISTATS 2021, stable ResNets; Zhang et al., ICLR 2019 (Fixup).
    """

    min_share: float = 0.5
    min_log_gain: float = SEVERE
    usual: float = 8.0
    # Fresh branches without a normalisation pass 1 to 4 times what their skips do, too large ones 16 times and more.
    throws: float = 0.1
    # Ten times the largest first step of healthy networks in docs/detection.md: after it blocks are what it made them.

    def __post_init__(self) -> None:
        check_number("ResidualBranches: min_share", self.min_share, above=0, at_most=1)
        check_number("ResidualBranches: min_log_gain", self.min_log_gain, above=0)
        check_number("ResidualBranches: usual", self.usual, above=0)
        check_number("ResidualBranches: throws", self.throws, above=0)

    def explain(self, history: History, probe: BackwardProfile | None, alerts: Sequence[Alert]) -> Diagnosis | None:
        whole = account(probe)
        if not told(alerts, *UNSTABLE) or probe is None:
            return None
        if whole is None:
            return self._by_signal(history, probe)
        if whole.is_cut:
            return None
        blocks = [e.segment for e in whole.of("residual")[::-1]]
        grown = math.fsum(s.log_gain for s in blocks)
        if grown < self.min_log_gain or grown < self.min_share * whole.log_gain:
            return None
        block = mean_gain([s.log_gain for s in blocks])
        branch = max(block - 1, 1e-6)
        names = list(dict.fromkeys(s.layer for s in blocks if s.layer))
        scaled = _scaled(names, len(blocks), branch)
        normalised = "normalise the input of each branch (pre-norm)"
        usual = branch <= self.usual and not first_update(history) > self.throws
        return Diagnosis(
            "residual_branches",
            confidence=0.6 if first_update(history) > self.throws else 0.9,
            layers=tuple(names),
            evidence=(
                f"each of {len(blocks)} residual blocks multiplies the squared gradient by {block:.3g}, its branches "
                f"pass {branch:.3g} where the skip passes 1",
                f"in all blocks together the gradient {changes(grown)}",
            ),
            remedy=f"{normalised}; or {scaled}" if usual else f"{scaled}; or {normalised}",
            change="norm" if usual else "init_scale",
        )

    def _by_signal(self, history: History, probe: BackwardProfile) -> Diagnosis | None:
        """Where a step has left no number to measure, by what the blocks made of the signal before it."""
        blocks, sizes = [s for s in reversed(probe.segments) if s.kind == "residual"], signal(history)
        if not blocks or len(sizes) < len(blocks):
            return None
        first, last = float(sizes[0]), float(sizes[-1])
        grown = 2 * math.log(last / first)
        if grown < self.min_log_gain:
            return None
        block = math.exp(min(grown / len(blocks), 700.0))
        names = list(dict.fromkeys(s.layer for s in blocks if s.layer))
        return Diagnosis(
            "residual_branches",
            confidence=0.85,
            layers=tuple(names),
            evidence=(
                f"at the first step the layers' inputs grow from {first:.2g} to {last:.2g} on their way to the output, "
                f"through {counted(len(blocks), 'residual block')}",
                f"so each multiplies the squared signal by {block:.3g}, and the squared gradient on its way back",
            ),
            remedy=_scaled(names, len(blocks), block - 1),
            change="init_scale",
        )


def _scaled(names: Sequence[str], blocks: int, branch: float) -> str:
    """The remedy for ``blocks`` blocks whose branches pass ``branch`` of the squared gradient."""
    factor = min(1.0, math.sqrt(1 / (blocks * branch)))
    return (
        f"multiply the output of each residual branch in {span(names)} by {factor:.2g}, so that all "
        f"{blocks} blocks together pass e"
    )
