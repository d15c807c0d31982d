"""Clip groups of parameters on their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradwatch.clipping.global_norm import GlobalNorm
from gradwatch.clipping.names import Patterns, index, names_of
from gradwatch.clipping.several import Several, check_parameters
from gradwatch.patterns import as_patterns, check_number
from gradwatch.protocols import ClipPolicy
from gradwatch.records import ClipRecord
from gradwatch.stats import Measured


class PerGroup(Several):
    """Clip each group of parameters by a policy of its own, as if it were all.

    A group is what a pattern matches, by the name of the parameter or of its layer; where several do the first counts.
    What none matches is left alone. The record's parts are the records of the groups.

    The patterns are held against all parameters of the model by the monitor, or else against those with a gradient at
    the first step.

    Args:
        groups: for each pattern a policy, or a number for :class:`GlobalNorm` of that.

    Raises:
        ValueError: when there are no groups, a number is not above 0, or two groups share a policy with a memory.
        TypeError: when ``groups`` is no mapping, a key no pattern, or a value neither number nor policy.

    Example:
        >>> g = [torch.tensor([3.0, 4.0]), torch.tensor([8.0])]
        >>> stats = Measured(torch.tensor([5.0, 8.0]), torch.tensor(9.434), names=("encoder.weight", "head.weight"))
        >>> record = PerGroup({"encoder.*": 1.0, "*": 4.0}).clip_(g, stats)
        >>> [[round(v, 4) for v in values.tolist()] for values in g]
        [[0.6, 0.8], [4.0]]
        >>> [(part.group, float(part.norm_before)) for part in record.parts]
        [('encoder.*', 5.0), ('*', 8.0)]
    """

    together: ClassVar[bool] = False

    def __init__(self, groups: Mapping[str, float | ClipPolicy]) -> None:
        if not isinstance(groups, Mapping):
            raise TypeError(f"PerGroup: groups must be a mapping from pattern to number or policy, got {groups!r}")
        self._patterns = Patterns("PerGroup: groups", as_patterns("PerGroup: groups", groups) or ())
        super().__init__("PerGroup: groups", {name: _policy(name, value) for name, value in groups.items()})

    def __repr__(self) -> str:
        return f"PerGroup({self.policies!r})"

    @torch.no_grad()
    def clip_(self, gradients: Sequence[Tensor], stats: Measured) -> ClipRecord:
        """Raises ValueError where ``stats`` are without names, or a pattern matches nothing."""
        names = names_of(stats, "PerGroup")
        if names and not self._patterns.checked:
            self._check_patterns(names)
        *groups, others = self._patterns.split(names)
        parts = tuple(
            replace(policy.clip_([gradients[i] for i in group], part_of(stats, group)), group=pattern)
            for (pattern, policy), group in zip(self.policies.items(), groups)
            if group  # else, as at the step of another optimizer, there is nothing to know either
        )
        left: Any = part_of(stats, others).total_norm
        after = (left * left + sum(part.norm_after * part.norm_after for part in parts)) ** 0.5
        clipped = sum(part.clipped for part in parts) / max(1, len(parts))
        before: Any = stats.total_norm
        # There is no one factor; on the CPU it is known for free that nothing was clipped.
        nothing = before.device.type == "cpu" and all(float(part.coefficient) == 1 for part in parts)
        return ClipRecord(
            "per_group", before, after, 1.0 if nothing else math.nan, math.nan, clipped=clipped, parts=parts
        )

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise ValueError where a pattern matches no name that is left for it, or its policy refuses the group."""
        names = list(parameters)
        self._check_patterns(names)
        for policy, group in zip(self.policies.values(), self._patterns.split(names)):
            check_parameters(policy, {names[i]: parameters[names[i]] for i in group})

    def _check_patterns(self, names: Sequence[str]) -> None:
        self._patterns.check(names)
        for pattern, group in zip(self._patterns.patterns, self._patterns.split(names)):
            if not group and pattern != "*":  # of what is left there may be nothing
                raise ValueError(f"PerGroup: groups: all that {pattern!r} matches belongs to a pattern before it")


def part_of(stats: Measured, group: tuple[int, ...]) -> Measured:
    """What was measured of some of the gradients."""
    norms = stats.norms[index(group, stats.norms.device)]
    return replace(
        stats,
        norms=norms,
        total_norm=torch.linalg.vector_norm(norms),
        names=[stats.names[i] for i in group],
        parameters=[stats.parameters[i] for i in group] if stats.parameters else (),
    )


def _policy(pattern: str, value: Any) -> ClipPolicy:
    if not isinstance(value, Real):
        return value  # type: ignore[no-any-return]
    check_number(f"PerGroup: groups[{pattern!r}]", value, above=0)
    return GlobalNorm(float(value))
