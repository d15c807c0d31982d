"""What the server that processes are forked from does once: import torch, and what its first step imports."""

import pytest  # noqa: F401

from tests.faults.training import unwatched

unwatched(1)
