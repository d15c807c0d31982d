from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from torch import nn

from gradwatch.safe_hook import SafeHook


def test_what_it_raises_is_handed_on() -> None:
    errors: list[Exception] = []

    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    assert SafeHook(fail, errors.append)(1) is None
    assert [str(error) for error in errors] == ["no room"]
    assert SafeHook(fail)(1) is None


def test_its_result_counts() -> None:
    net = nn.Linear(2, 1)
    handle = net.register_forward_hook(SafeHook(lambda module, args, output: output + 1))
    x = torch.ones(1, 2)
    changed = net(x)
    handle.remove()
    torch.testing.assert_close(changed, net(x) + 1)


def test_copies_and_files_do_nothing_in_its_place() -> None:
    net = nn.Linear(2, 1)
    net.register_forward_hook(SafeHook(lambda module, args, output: output + 1))
    plain = nn.functional.linear(torch.ones(1, 2), net.weight, net.bias)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        torch.testing.assert_close(other(torch.ones(1, 2)), plain)
