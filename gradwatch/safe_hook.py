"""SafeHook: a hook that never fails, and that no copy or file of the model takes with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch


class SafeHook:
    """Calls ``hook``, unless a compiler is tracing it, and passes its result on; None where it raises.

    In a copy of the module, or a file of it, is one that does nothing in its place.

    Args:
        hook: what is called.
        on_error: is given what it raises.

    Example:
        >>> import copy
        >>> hook = SafeHook(lambda x: 1 / x)
        >>> hook(2), hook(0), copy.deepcopy(hook)(2)
        (0.5, None, None)
    """

    def __init__(self, hook: Callable[..., Any], on_error: Callable[[Exception], None] | None = None) -> None:
        self._hook, self._on_error = hook, on_error

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():
            return None
        try:
            return self._hook(*args)
        except Exception as error:
            if self._on_error is not None:
                self._on_error(error)
            return None

    def __reduce__(self) -> tuple[Any, ...]:
        """A callable of the standard library that takes anything: the file can be read where gradwatch is not."""
        return getattr, (contextlib.nullcontext(), "__exit__")
