"""From a model to its layers."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gradwatch.layers import LayerTable
from tests.models import GALLERY, BuffersOnly, backward, build, layer_of, mlp


def rows(table: LayerTable) -> dict[int, str]:
    """The layer of each gradient, by the parameter's id."""
    found = table.collect()
    return {id(p): table.names[row] for p, row in zip(found.parameters, found.rows)}


def expected(example) -> dict[str, list[str]]:
    """The parameters of each layer, from ``named_parameters()`` alone; one without elements is of no layer."""
    layers: dict[str, list[str]] = {}
    for name, p in example.model.named_parameters():
        if not is_lazy(p) and p.numel() == 0:
            continue
        short = name
        for wrapper in example.wrappers:
            short = short.replace(wrapper, "")
        layers.setdefault(layer_of(name, example), []).append(short)
    return layers


@pytest.mark.parametrize("name", GALLERY)
def test_layers_are_the_modules_with_parameters(name):
    example = build(name)
    table = LayerTable(example.model)
    assert {layer.name: list(layer.parameters) for layer in table.layers} == expected(example)
    assert table.names == tuple(layer.name for layer in table.layers)
    assert len(set(table.names)) == len(table.names)


@pytest.mark.parametrize("name", GALLERY)
def test_by_parameter_every_parameter_is_a_layer(name):
    example = build(name)
    table = LayerTable(example.model, granularity="parameter")
    assert list(table.names) == [p for parameters in expected(example).values() for p in parameters]
    assert all(layer.parameters == (layer.name,) for layer in table.layers)


@pytest.mark.parametrize("granularity", ["layer", "parameter"])
@pytest.mark.parametrize("name", GALLERY)
def test_collect_finds_each_gradient_once(name, granularity):
    example = build(name)
    table = LayerTable(example.model, granularity)
    backward(example)
    found = table.collect()
    have = [p for p in example.model.parameters() if p.grad is not None and p.numel()]
    assert [id(p) for p in found.parameters] == [id(p) for p in have]
    assert all(value is p.grad for p, value in zip(found.parameters, found.values))


@pytest.mark.parametrize("name", GALLERY)
def test_sizes_add_up_to_the_model(name):
    example = build(name)
    table = LayerTable(example.model)
    backward(example)  # gives lazy layers their shape
    table.collect()
    assert sum(layer.numel for layer in table.layers) == sum(p.numel() for p in example.model.parameters())


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("mlp", ["Linear", "Linear"]),
        ("unet", ["Conv2d", "Conv2d", "GroupNorm", "ConvTranspose2d", "Conv2d"]),
        ("weight_norm", ["Linear", "Linear"]),
        ("spectral_norm", ["Conv2d", "Conv2d"]),
        ("script_module", ["Linear", "Linear"]),
        ("compiled_submodule", ["Linear", "Linear"]),
        ("averaged_model", ["Linear", "Linear"]),
        ("root_parameter", ["RootParameter", "Linear"]),
    ],
)
def test_kinds(name, kinds):
    assert [layer.kind for layer in LayerTable(build(name).model).layers] == kinds


def test_a_bare_layer_has_the_name_of_its_class():
    assert LayerTable(nn.Linear(2, 1)).names == ("Linear",)
    assert LayerTable(nn.DataParallel(nn.Linear(2, 1))).names == ("Linear",)


def test_tied_weights_belong_to_the_first_place():
    model = build("gpt").model
    table = LayerTable(model)
    assert "lm_head" not in table.names
    assert table.layers[0].parameters == ("wte.weight",)


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ("h.0.*", None, ["h.0.ln_1", "h.0.ln_2", "h.0.attn", "h.0.attn.out_proj", "h.0.mlp.0", "h.0.mlp.2"]),
        (["wte", "ln_?"], None, ["wte", "ln_f"]),
        (None, ["h.*", "w*"], ["ln_f", "lm_head"]),
        ("lm_head", None, ["lm_head"]),  # tied weights go by any of their names
        ("h.*", "*.mlp.*", [f"h.{i}.{part}" for i in (0, 1) for part in ("ln_1", "ln_2", "attn", "attn.out_proj")]),
    ],
)
def test_include_and_exclude(include, exclude, names):
    example = build("gpt")
    table = LayerTable(example.model, include=include, exclude=exclude)
    assert list(table.names) == names
    backward(example)
    assert set(rows(table).values()) == set(names)


def test_patterns_by_parameter():
    table = LayerTable(build("mlp").model, granularity="parameter", include="*.bias")
    assert table.names == ("0.bias", "2.bias")


def test_collect_only_some_parameters():
    example = build("mlp")
    table = LayerTable(example.model)
    backward(example)
    only = [example.model[2].bias]
    assert [id(p) for p in table.collect(only).parameters] == [id(only[0])]
    assert table.collect([]).values == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": torch.zeros(3)}, TypeError, r"model must be a torch\.nn\.Module, got Tensor"),
        ({"model": nn.Linear}, TypeError, r"model must be a torch\.nn\.Module, got type"),
        ({"model": BuffersOnly()}, ValueError, "model: BuffersOnly has no parameters"),
        ({"model": nn.Sequential()}, ValueError, "model: Sequential has no parameters"),
        ({"granularity": "module"}, ValueError, "granularity must be 'layer' or 'parameter', got 'module'"),
        ({"include": "encoder.*"}, ValueError, r"include: the pattern 'encoder\.\*' matches no layer.*are: 0, 2"),
        ({"exclude": ["0", "1"]}, ValueError, "exclude: the pattern '1' matches no layer; the layers are: 0, 2"),
        ({"exclude": "*"}, ValueError, r"include=None and exclude=\('\*',\) leave no layer to watch"),
        ({"include": [0]}, TypeError, r"include takes patterns such as 'encoder\.\*', got 0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LayerTable(**{"model": build("mlp").model, **arguments})


def test_long_lists_of_layers_are_cut_in_errors():
    with pytest.raises(ValueError, match=r"the layers are: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        LayerTable(nn.Sequential(*[nn.Linear(1, 1) for _ in range(20)]), include="x")


class TestChangesWhileTraining:
    def test_freezing_and_unfreezing(self):
        example = build("mlp")
        first = example.model[0]
        table = LayerTable(example.model)
        first.requires_grad_(False)
        backward(example)
        assert set(rows(table).values()) == {"2"}
        first.requires_grad_(True)
        backward(example)
        assert set(rows(table).values()) == {"0", "2"}
        assert table.names == ("0", "2")

    def test_a_module_is_added(self):
        example = build("mlp")
        table = LayerTable(example.model)
        table.collect()
        example.model.append(nn.Linear(3, 2))
        backward(example)
        assert set(rows(table).values()) == {"0", "2", "3"}
        assert table.layers[-1].numel == 8

    def test_a_module_is_removed(self):
        example = build("mlp")
        table = LayerTable(example.model)
        del example.model[2]
        backward(example)
        assert set(rows(table).values()) == set(table.names) == {"0"}

    def test_a_module_is_replaced(self):
        example = build("mlp")
        table = LayerTable(example.model)
        example.model[2] = nn.Linear(8, 1)
        backward(example)
        assert rows(table)[id(example.model[2].weight)] == "2"
        assert table.layers[1].numel == 9

    def test_parameters_are_replaced(self):
        example = build("mlp")
        table = LayerTable(example.model)
        last = example.model[2]
        last.weight, last.bias = nn.Parameter(torch.randn(1, 8)), nn.Parameter(torch.zeros(1))
        backward(example)
        assert rows(table)[id(last.weight)] == rows(table)[id(last.bias)] == "2"
        assert table.layers[1].numel == 9

    def test_a_parameter_takes_the_place_of_none(self):
        model = nn.Sequential(nn.Linear(4, 3, bias=False))
        table = LayerTable(model, granularity="parameter")
        model[0].bias = nn.Parameter(torch.zeros(3))
        model(torch.ones(1, 4)).sum().backward()
        assert rows(table)[id(model[0].bias)] == "0.bias"

    def test_a_parameter_is_added_to_the_root(self):
        example = build("bare_layer")
        table = LayerTable(example.model, granularity="parameter")
        example.model.register_parameter("extra", nn.Parameter(torch.ones(2)))
        example.model.extra.grad = torch.ones(2)
        assert rows(table) == {id(example.model.extra): "extra"}

    def test_weights_are_tied(self):
        example = build("gpt")
        model = example.model
        model.lm_head.weight = nn.Parameter(model.wte.weight.detach().clone())
        table = LayerTable(model)
        assert table.names[-1] == "lm_head"
        model.lm_head.weight = model.wte.weight
        backward(example)
        assert len(table.collect().values) == len(list(model.parameters()))
        assert "lm_head" not in table.names

    def test_weights_are_untied(self):
        example = build("gpt")
        model = example.model
        table = LayerTable(model)
        model.lm_head.weight = nn.Parameter(model.wte.weight.detach().clone())
        backward(example)
        found = rows(table)
        assert found[id(model.wte.weight)] == "wte"
        assert found[id(model.lm_head.weight)] == "lm_head"

    def test_a_parametrization_is_added_and_removed(self):
        example = build("mlp")
        table = LayerTable(example.model)
        nn.utils.parametrizations.weight_norm(example.model[0])
        backward(example)
        assert sorted(rows(table).values()) == ["0", "0", "0", "2", "2"]
        nn.utils.parametrize.remove_parametrizations(example.model[0], "weight")
        example.model.zero_grad()
        backward(example)
        assert sorted(rows(table).values()) == ["0", "0", "2", "2"]

    def test_what_is_excluded_stays_so(self):
        example = build("mlp")
        table = LayerTable(example.model, exclude="2")
        example.model.append(nn.Linear(3, 2))
        backward(example)
        assert set(rows(table).values()) == {"0", "3"}

    def test_a_change_of_dtype(self):
        example = build("mlp")
        table = LayerTable(example.model)
        example.model.double()
        backward(example._replace(inputs=(example.inputs[0].double(),)))
        assert set(rows(table).values()) == {"0", "2"}


def test_lazy_layers_get_their_size_and_kind_with_the_first_batch():
    example = build("lazy_layers")
    table = LayerTable(example.model)
    assert [(layer.name, layer.kind, layer.numel) for layer in table.layers] == [
        ("0", "LazyLinear", 0),
        ("2", "LazyLinear", 0),
    ]
    backward(example)
    assert len(table.collect().values) == 4
    assert [(layer.kind, layer.numel) for layer in table.layers] == [("Linear", 40), ("Linear", 18)]


@pytest.mark.parametrize("name", ["mlp", "gpt", "weight_norm", "data_parallel"])
def test_the_table_does_not_keep_the_model(name):
    example = build(name)
    table = LayerTable(example.model)
    backward(example)
    table.collect()
    alive = weakref.ref(example.model)
    parameter = weakref.ref(next(example.model.parameters()))
    del example
    gc.collect()
    assert alive() is None
    assert parameter() is None
    assert table.collect().values == []


def test_nothing_is_left_on_the_model():
    example = mlp()
    before = {name: set(vars(module)) for name, module in example.model.named_modules()}
    LayerTable(example.model).collect()
    assert {name: set(vars(module)) for name, module in example.model.named_modules()} == before
