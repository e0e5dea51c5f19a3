"""The committed configurations of MetaPruning's networks are the published ones."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import replace

import pytest
import torch

from hwprune.config import load_config, resolved
from hwprune.project import estimators
from hwprune.project.folder import Project
from hwprune.project.network import traced

# Genes, MACs of the supernet (M), and parameters of the published PruningNet (M): counted there without the
# scale and shift of normalisation.
NETWORKS = {
    "mobilenet_v1": (13, 568.7, 106.1),
    "mobilenet_v2": (25, 569.5, 242.0),
    "resnet50": (20, 4089.2, 776.1),
}
# epochs, batch, learning rate, schedule, weight decay: of PruningNet, and of the final training
RECIPES = {
    "mobilenet_v1": ((64, 512, 0.25, "linear", 4e-5), (256, 1024, 0.5, "linear", 4e-5)),
    "mobilenet_v2": ((64, 512, 0.25, "linear", 0.0), (256, 1024, 0.5, "linear", 4e-5)),
    "resnet50": ((32, 256, 0.1, "step", 1e-4), (128, 512, 0.2, "step", 1e-4)),
}


@pytest.fixture(params=NETWORKS, scope="module")
def network(request, repository):
    """Name, configuration without its images, model, and space of one of the three."""
    config = resolved(load_config(repository / "benchmarks" / "paper" / f"{request.param}.toml"))
    name = config.model.name.replace("benchmarks/", f"{repository}/benchmarks/")
    model = replace(config.model, name=name)
    project = Project(repository, replace(config, model=model, data=replace(config.data, source="")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return request.param, project.config, project.new_model(), traced(project)


def test_the_genes_are_the_papers(network):
    name, config, _, space = network
    genes, macs, _ = NETWORKS[name]
    assert len(space.groups) == genes
    assert space.macs(space.full()) / 1e6 == pytest.approx(macs, rel=0.001)
    space = space.with_choices(config.profiling.channel_multiple)
    for group in space.groups:
        assert set(group.choices) == {max(1, group.width * (10 + 3 * i) // 100) for i in range(31)}


def test_the_generators_are_the_papers(network):
    name, config, model, space = network
    assert parameters(model, space, config, "fc") / 1e6 == pytest.approx(NETWORKS[name][2], rel=0.002)


def test_the_residual_generator_needs_little_more_than_the_network(network):
    _, config, model, space = network
    own = sum(parameter.numel() for parameter in model.parameters())
    assert own < parameters(model, space, config, "residual") <= 1.3 * own


def parameters(model, space, config, generator) -> int:
    """Parameters of a PruningNet, which is built without memory."""
    config = replace(config, pruningnet=replace(config.pruningnet, generator=generator))
    with torch.device("meta"):
        net = estimators.pruningnet_of(config, model, space)
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_constants_are_the_papers(network):
    name, config, _, _ = network
    assert (config.search.population, config.search.parents, config.search.generations) == (50, 10, 20)
    assert (config.search.mutants, config.search.crossovers) == (25, 25)
    assert config.search.mutation_probability == 0.1
    assert (config.search.fit_children, config.search.race) == (False, False)
    assert config.data.sub_val == 50_000
    assert config.pruningnet.generator == "fc"
    assert config.pruningnet.recalibration_images == 100_000
    assert config.training.start == "scratch"
    assert (recipe_of(config.pruningnet), recipe_of(config.training)) == RECIPES[name]


def recipe_of(recipe):
    assert (recipe.momentum, recipe.nesterov, recipe.label_smoothing) == (0.9, False, 0.1)
    return recipe.epochs, recipe.batch_size, recipe.lr, recipe.schedule, recipe.weight_decay


def _networks(repository):
    path = repository / "benchmarks" / "paper" / "networks.py"
    found = importlib.util.spec_from_file_location("paper_networks", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def macs_of(model) -> float:
    """Millions of multiply-accumulates of one 224x224 image, counted layer by layer as it runs."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        total += output[0].numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.device("meta"):
        model.to("meta").eval()(torch.zeros(1, 3, 224, 224))
    return total / 1e6


@pytest.mark.parametrize(("width", "printed"), [(1.0, 569), (0.75, 325), (0.5, 149), (0.25, 41)])
def test_macs_of_the_uniform_mobilenet_v1(width, printed):
    from hwprune.models.mobilenet_v1 import mobilenet_v1

    assert macs_of(mobilenet_v1(width=width)) == pytest.approx(printed, rel=0.01)


@pytest.mark.parametrize(("width", "printed"), [(1.4, 585), (1.0, 313), (0.65, 140)])
def test_macs_of_the_uniform_mobilenet_v2(width, printed, repository):
    assert macs_of(_networks(repository).mobilenet_v2_uniform(width=width)) == pytest.approx(
        printed, rel=0.01
    )


def test_macs_of_the_narrowest_mobilenet_v2_are_found_to_two_percent_only(repository):
    """The paper prints 43M: with 0.35 times the last 1280 channels it is 43.9, with all of them 49.3."""
    networks = _networks(repository)
    channels = [int(count * 0.35) for count in networks.BASE]
    narrow = networks.MobileNetV2(1000, [*channels, 448], dropout=0.0, expand_first=True)
    assert macs_of(narrow) == pytest.approx(43, rel=0.025)
    assert macs_of(networks.mobilenet_v2_uniform(width=0.35)) == pytest.approx(49.3, rel=0.01)


@pytest.mark.parametrize(("share", "printed"), [(1.0, 4.1), (0.75, 2.3), (0.5, 1.1)])
def test_macs_of_the_uniform_resnet50(share, printed):
    import torchvision

    from hwprune.structure.trace import trace

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        space = trace(torchvision.models.resnet50(), torch.zeros(1, 3, 224, 224))
    widths = tuple(int(group.width * share) for group in space.groups)
    assert round(float(space.macs(widths)) / 1e9, 1) == printed
