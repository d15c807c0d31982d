"""Making sure, before training starts, that a place can be written to."""

from __future__ import annotations

import os
from pathlib import Path


def writable_directory(argument: str, path: str | os.PathLike[str]) -> Path:
    """``path`` as a directory that exists and can be written to, absolute: training may change directory later.

    Raises:
        TypeError: when ``path`` is not a path.
        ValueError: when it cannot be made or written to, with the path and the reason.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{argument} must be a path, got {path!r}")
    if path == "":
        raise ValueError(f"{argument} must be a path, got ''")
    directory = Path(path).absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{argument}: cannot write to {str(path)!r}: {reason}") from error
    return directory
