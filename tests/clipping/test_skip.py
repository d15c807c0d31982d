"""A skipped step is one that the optimizer did not make."""

import copy

import pytest
import torch

from gradwatch.clipping.skip import pass_on, skip_
from gradwatch.stats import Measured, measure
from tests.tensors import NAN, normal, sparse


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def backward(model, seed):
    model(normal(5, 3, seed=seed)).square().mean().backward()


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_leaves_parameters_and_optimizer_as_they_are(name):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    backward(model, seed=1)
    optimizer.step()
    before = copy.deepcopy([model.state_dict(), optimizer.state_dict()])
    optimizer.zero_grad()
    backward(model, seed=2)
    parameters = list(model.parameters())
    gradients = [p.grad for p in parameters]
    measured = measure(gradients)
    skip_(gradients, Measured(measured.norms, measured.total_norm, parameters=parameters), "test", 1.0)
    optimizer.step()
    assert str([model.state_dict(), optimizer.state_dict()]) == str(before)
    for old, new in zip(before[0].values(), model.state_dict().values()):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    "gradient",
    [
        torch.tensor([NAN, 1.0]),
        torch.tensor(2.0),
        torch.zeros(0),
        normal(3, dtype=torch.bfloat16),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.tensor([3 + NAN * 1j]),
        sparse(1, 1, 4),
        normal(3, 4).t(),
    ],
    ids=["nan", "0-dim", "empty", "bfloat16", "float8", "complex", "sparse", "transposed"],
)
def test_without_the_parameters_gradients_become_zero(gradient):
    given = gradient.clone()
    skip_([given], measure([given]), "test", 1.0)
    assert (given.dtype, given.shape, given.layout) == (gradient.dtype, gradient.shape, gradient.layout)
    assert not given.to_dense().to(torch.complex64).count_nonzero()


def test_the_records():
    measured = measure([torch.tensor([3.0, 4.0])])
    skipped, passed = skip_([], measured, "test", 2.0), pass_on(measured, "test", 7.0)
    for record, expected in ((skipped, [5.0, 0.0, 0.0, 2.0, 1.0]), (passed, [5.0, 5.0, 1.0, 7.0, 0.0])):
        assert record.policy == "test"
        given = (record.norm_before, record.norm_after, record.coefficient, record.threshold, record.clipped)
        assert [float(value) for value in given] == expected
