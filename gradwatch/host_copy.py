"""The one copy per step that crosses from the device to the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradwatch.records import FloatArray


class HostCopy:
    """One vector on its way from the device to the host; on the CPU it is there at once.

    On CUDA the copy goes into pinned memory and an event tells when it has arrived, so nobody waits for the GPU.
    """

    def __init__(self, vector: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if vector.is_cuda:
            self._host = torch.empty(vector.shape, dtype=vector.dtype, pin_memory=True)
            self._host.copy_(vector, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(vector.device))
        else:
            self._host = vector.cpu()

    def ready(self) -> bool:
        """Whether :meth:`numpy` returns without waiting."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def numpy(self) -> FloatArray:
        """float64, waits where the copy has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.numpy().astype(np.float64, copy=False)
