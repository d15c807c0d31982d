from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradwatch.alike import AlikeUnits
from gradwatch.layers import Gradients, LayerTable
from tests.tensors import normal


def net(weight: float | None, activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), activation, nn.Linear(6, 6), activation, nn.Linear(6, 3))
    for layer in model:
        if isinstance(layer, nn.Linear) and weight is not None:
            nn.init.constant_(layer.weight, weight)
            nn.init.zeros_(layer.bias)
    return model


def looks(model: nn.Module, steps: int = 3, x: Tensor | None = None) -> list[list[int]]:
    """The rows that each of some steps of training tells."""
    alike, table, optimizer = AlikeUnits(), LayerTable(model), torch.optim.Adam(model.parameters(), lr=1e-2)
    x, found = normal(16, 5) if x is None else x, []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(len(x)) % 3).backward()
        found.append(alike.look(table.collect()))
        optimizer.step()
    return found


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.ReLU()])
def test_hidden_layers_of_one_number_stay_alike(activation: nn.Module) -> None:
    assert looks(net(0.1, activation)) == [[0, 1]] * 3


def test_biases_drawn_at_random_do_not_make_weights_of_one_number_units_of_their_own() -> None:
    model = net(0.1, nn.ReLU())
    for layer in model[::2]:
        nn.init.uniform_(layer.bias, -0.5, 0.5)
    assert looks(model, steps=2) == [[0, 1]] * 2


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_one_layer_of_one_number_is_told_by_its_gradient_alone(value: float) -> None:
    model = net(None, nn.ReLU())
    nn.init.constant_(model[0].weight, value)
    assert looks(model) == [[]] * 3


def test_weights_that_have_left_their_one_number() -> None:
    model = net(0.1, nn.ReLU())
    for layer in model[::2]:
        nn.init.uniform_(layer.bias, -0.5, 0.5)
    nn.functional.cross_entropy(model(normal(16, 5)), torch.arange(16) % 3).backward()
    alike, gradients = AlikeUnits(), LayerTable(model).collect()
    assert alike.look(gradients) == [0, 1]
    with torch.no_grad():
        model[2].weight[0, 0] += 0.1
    assert alike.look(gradients) == [0]


def test_layers_drawn_at_random_are_not() -> None:
    assert looks(net(None, nn.Tanh())) == [[]] * 3


def test_weights_of_zero_are_none_where_their_gradient_tells_them_apart() -> None:
    model = net(None, nn.Tanh())
    nn.init.zeros_(model[4].weight)
    assert looks(model) == [[]] * 3


def test_nor_where_they_have_no_gradient() -> None:
    """All but the last layer wait for it: at the first step its weights are zero."""
    assert looks(net(0.0, nn.Tanh())) == [[]] * 3


def test_classes_of_which_no_example_comes_are_not_all() -> None:
    """Their rows of a head that begins at zero have one gradient."""
    torch.manual_seed(0)
    head, h = nn.Linear(5, 12), torch.randn(16, 5)
    nn.init.zeros_(head.weight)
    nn.functional.cross_entropy(head(h), 3 + torch.arange(16) % 4).backward()
    assert AlikeUnits().look(LayerTable(head).collect()) == []


@pytest.mark.parametrize("rnn", [nn.LSTM, nn.GRU])
def test_the_matrices_of_gates_are_compared_one_by_one(rnn: type[nn.RNNBase]) -> None:
    model = rnn(3, 8, batch_first=True)
    for p in model.parameters():
        nn.init.constant_(p, 0.1)
    model(normal(4, 6, 3))[0].square().sum().backward()
    assert AlikeUnits().look(LayerTable(model).collect()) == [0, 0]


def test_a_gradient_that_overflows_tells_nothing() -> None:
    weight, alike = nn.Parameter(torch.ones(4, 3)), AlikeUnits()
    for value, found in ((torch.inf, []), (torch.nan, []), (1.0, [0])):
        weight.grad = torch.full((4, 3), value)
        assert alike.look(Gradients([weight], [weight.grad], [0])) == found


def test_dropout_tells_them_apart() -> None:
    model = net(0.1, nn.Tanh())
    model.insert(1, nn.Dropout(0.5))
    nn.init.normal_(model[3].weight)
    assert looks(model)[0] == []


def test_kernels_and_recurrent_weights() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(1, 4, 3), nn.RNN(4, 4, batch_first=True)
            self.head = nn.Linear(4, 3)
            for p in self.parameters():
                nn.init.constant_(p, 0.1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.rnn(self.conv(x[:, None]).movedim(1, 2))[0][:, -1])
            return out

    assert {*looks(Net(), steps=1)[0]} == {0, 1}


def test_sparse_frozen_and_single_units() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.one, self.head = nn.Embedding(9, 5, sparse=True), nn.Linear(5, 1), nn.Linear(1, 3)
            self.frozen = nn.Linear(5, 5).requires_grad_(False)
            nn.init.ones_(self.frozen.weight)
            nn.init.ones_(self.table.weight)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.one(self.frozen(self.table(x)).tanh()))
            return out

    model, alike = Net(), AlikeUnits()
    nn.functional.cross_entropy(model(torch.arange(6)), torch.arange(6) % 3).backward()
    assert alike.look(LayerTable(model).collect()) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_alike(value: float) -> None:
    assert looks(net(0.1, nn.ReLU()), steps=1, x=torch.full((4, 5), value)) == [[]]
