"""Policies within a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from gradwatch.protocols import ClipPolicy


class Several:
    """Policies by name, and what is to be handed on to those of them that have a use for it.

    Args:
        argument: what to call the policies in an error.
        policies: an object for each name. One with a memory can only remember the gradients of one.

    Raises:
        TypeError: when one is not a policy.
        ValueError: when there are none, or one with a memory is there twice.
    """

    together: ClassVar[bool] = True
    """Whether each policy gets all gradients."""

    def __init__(self, argument: str, policies: Mapping[str, ClipPolicy]) -> None:
        if not policies:
            raise ValueError(f"{argument} must be one policy or more, got none")
        for name, policy in policies.items():
            if isinstance(policy, type) or not callable(getattr(policy, "clip_", None)):
                raise TypeError(f"{argument}[{name}] must be a clip policy, got {policy!r}")
        stateful = [id(policy) for policy in policies.values() if hasattr(policy, "state_dict")]
        if len(set(stateful)) < len(stateful):
            raise ValueError(f"{argument} has one policy with a memory twice: make one for each")
        self.policies = dict(policies)

    def check_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Raise ValueError where a policy cannot be right for the model of ``parameters``, by their names."""
        for policy in self.policies.values():
            check_parameters(policy, parameters)

    def state_dict(self) -> dict[str, Any]:
        return {name: self.policies[name].state_dict() for name in self._with("state_dict")}  # type: ignore[attr-defined]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Those without a saved state start anew."""
        for name in self._with("load_state_dict"):
            if name in state:
                self.policies[name].load_state_dict(state[name])  # type: ignore[attr-defined]

    def _with(self, method: str) -> list[str]:
        return [name for name, policy in self.policies.items() if hasattr(policy, method)]


def remembers(policy: ClipPolicy) -> bool:
    """Whether ``policy`` goes by what it saw at the steps before, all of it together."""
    if isinstance(policy, Several):
        return policy.together and any(map(remembers, policy.policies.values()))
    return hasattr(policy, "state_dict")


def check_parameters(policy: ClipPolicy, parameters: Mapping[str, Tensor]) -> None:
    """Raise ValueError where ``policy`` says that it cannot be right for ``parameters``, by their names."""
    if hasattr(policy, "check_parameters"):
        policy.check_parameters(parameters)
