"""The copy to the host, as far as the CPU can drive it."""

import numpy as np
import torch

from gradwatch.host_copy import HostCopy

NAN = float("nan")


def test_host_copy_is_float64_and_does_not_follow_the_vector():
    vector = torch.tensor([1.0, NAN, 1e-30])
    copy = HostCopy(vector)
    assert copy.ready()
    assert copy.numpy().dtype == np.float64
    np.testing.assert_array_equal(copy.numpy(), vector.double().numpy())
