"""Weights at the start: a scheme by its name, and a gain on top of it."""

from __future__ import annotations

from torch import Tensor, nn


def initialise(weight: Tensor, scheme: str, gain: float = 1.0) -> None:
    """Fill ``weight`` in place; every scheme's standard deviation is multiplied by ``gain``.

    Args:
        weight: of a linear layer or a convolution.
        scheme: ``"he"`` (variance 2/fan_in, He et al. 2015), ``"lecun"`` (1/fan_in, LeCun et al. 1998), ``"xavier"``
            (2/(fan_in + fan_out), Glorot and Bengio 2010), ``"orthogonal"`` (Saxe et al. 2014), ``"identity"`` (Le et
            al. 2015) or ``"normal"`` (1, so that ``gain`` is the standard deviation).
        gain: 1 is the scheme as it was published.
    """
    if scheme == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif scheme == "lecun":
        nn.init.kaiming_normal_(weight, nonlinearity="linear")
    elif scheme == "xavier":
        nn.init.xavier_normal_(weight)
    elif scheme == "orthogonal":
        nn.init.orthogonal_(weight)
    elif scheme == "identity":
        nn.init.eye_(weight)
    elif scheme == "normal":
        nn.init.normal_(weight)
    else:
        raise ValueError(f"no such scheme of initialisation: {scheme!r}")
    weight.data.mul_(gain)
