"""Loading weights: every format, all or nothing, and nothing executed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hwprune.errors import ModelError, UsageError
from hwprune.models.registry import build
from hwprune.models.weights import load_weights

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(1)
    return build("resnet20", num_classes=10)


@pytest.fixture
def fresh() -> nn.Module:
    torch.manual_seed(2)
    return build("resnet20", num_classes=10)


def same(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Hostile:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth"])
def test_every_format_loads(tmp_path: Path, name: str, trained: nn.Module, fresh: nn.Module) -> None:
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(trained.state_dict(), path)
    else:
        torch.save(trained.state_dict(), path)
    assert not same(trained, fresh)
    load_weights(fresh, path if name == "w.pt" else str(path))
    assert same(trained, fresh)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "model_ema", "state_dict_ema", "ema"]
)
@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_nested_and_prefixed_state_dicts_load(
    tmp_path: Path, key: str, prefix: str, trained: nn.Module, fresh: nn.Module
) -> None:
    state = {f"{prefix}{name}": value for name, value in trained.state_dict().items()}
    torch.save({"epoch": 3, key: state}, tmp_path / "w.pt")
    load_weights(fresh, tmp_path / "w.pt")
    assert same(trained, fresh)


def test_averaged_weights_are_preferred_and_told(
    tmp_path: Path, trained: nn.Module, fresh: nn.Module
) -> None:
    other = build("resnet20", num_classes=10).state_dict()
    averaged = {f"module.{name}": value for name, value in trained.state_dict().items()}
    content = {"state_dict": other, "ema": {"state_dict": {**averaged, "n_averaged": torch.tensor(7)}}}
    torch.save(content, tmp_path / "w.pt")
    given = load_weights(fresh, tmp_path / "w.pt")
    assert same(trained, fresh)
    assert "averaged weights under 'ema'" in given.notes[0]


def test_another_number_of_classes_leaves_the_last_layer_random_and_tells_it(
    tmp_path: Path, trained: nn.Module
) -> None:
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    net = build("resnet20", num_classes=7)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    given = load_weights(net, tmp_path / "w.safetensors")
    assert given.anew == ("fc",)
    assert "fc was made anew, with random weights: the source has 10 classes, the model has 7" in given.notes
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("fc.") else trained.state_dict()[name])


def test_a_narrower_layer_inside_is_no_other_number_of_classes(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).state_dict(), tmp_path / "w.pt")
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    with pytest.raises(ModelError, match="do not fit"):
        load_weights(net, tmp_path / "w.pt")


def test_the_name_that_a_missing_tensor_may_have_in_the_file_is_told(
    tmp_path: Path, trained: nn.Module, fresh: nn.Module
) -> None:
    state = {name.replace("conv1.", "conv_1."): value for name, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"conv1\.weight \(there is conv_1\.weight\)"):
        load_weights(fresh, tmp_path / "w.pt")


def test_old_files_without_batch_counters_load(tmp_path: Path, trained: nn.Module, fresh: nn.Module) -> None:
    state = {k: v for k, v in trained.state_dict().items() if "num_batches_tracked" not in k}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(fresh, tmp_path / "w.safetensors")
    assert same(trained, fresh)


def test_every_misfit_is_told_and_nothing_is_loaded(
    tmp_path: Path, trained: nn.Module, fresh: nn.Module
) -> None:
    state = trained.state_dict()
    del state["conv1.weight"]
    state["extra.weight"] = torch.zeros(3)
    state["fc.weight"] = torch.zeros(100, 64)
    save_file(state, tmp_path / "w.safetensors")
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_weights(fresh, tmp_path / "w.safetensors")
    text = str(caught.value)
    for words in (
        "1 missing: conv1.weight",
        "1 unexpected: extra.weight",
        "fc.weight (100, 64) instead of (10, 64)",
    ):
        assert words in text
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())


def test_weights_of_another_network_are_counted_not_listed(tmp_path: Path, fresh: nn.Module) -> None:
    torch.save(build("resnet56", num_classes=10).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="do not fit") as caught:
        load_weights(fresh, tmp_path / "w.pt")
    assert "216 unexpected" in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("nested", [True, False])
def test_malicious_pickle_is_refused_unrun(tmp_path: Path, fresh: nn.Module, nested: bool) -> None:
    trap = tmp_path / "made-by-the-pickle"
    content = {"state_dict": Hostile(trap)} if nested else Hostile(trap)
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="more than weights") as caught:
        load_weights(fresh, tmp_path / "w.pt")
    assert not trap.exists()
    assert "torch.save(model.state_dict(), FILE)" in str(caught.value)


def test_whole_pickled_models_are_refused(tmp_path: Path, trained: nn.Module, fresh: nn.Module) -> None:
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="more than weights"):
        load_weights(fresh, tmp_path / "w.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", None], ids=["empty", "text", "truncated"])
def test_damaged_files(
    tmp_path: Path, suffix: str, content: bytes | None, trained: nn.Module, fresh: nn.Module
) -> None:
    path = tmp_path / f"w{suffix}"
    if content is None:
        save_file(trained.state_dict(), path) if suffix == ".safetensors" else torch.save(
            trained.state_dict(), path
        )
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_weights(fresh, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [torch.zeros(3), {}, {"a": 1}, {"model": {"lr": 0.1}}, [1, 2]])
def test_files_without_a_state_dict(tmp_path: Path, fresh: nn.Module, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no state dict"):
        load_weights(fresh, tmp_path / "w.pt")


def test_missing_files_and_unknown_kinds(tmp_path: Path, fresh: nn.Module) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_weights(fresh, tmp_path / "absent.safetensors")
    with pytest.raises(UsageError) as caught:
        load_weights(fresh, "weights.h5")
    assert "FILE.safetensors" in str(caught.value)
    with pytest.raises(ModelError, match="torchvision has no network"):
        load_weights(fresh, "torchvision:resnet19")


def test_failed_download_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        load_weights(build("mobilenet_v2"), "torchvision:mobilenet_v2")
    assert "https://" in str(caught.value)
    assert "FILE.pth" in str(caught.value)


def test_weights_of_timm_load_and_failures_to_download_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    theirs, create = timm.create_model("mobilenetv3_small_050", num_classes=1000), timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *args, **more: theirs if more["pretrained"] else create(*args, **more)
    )
    ours = build("timm:mobilenetv3_small_050", num_classes=10)
    given = load_weights(ours, "timm:mobilenetv3_small_050")
    assert torch.equal(ours.conv_stem.weight, theirs.conv_stem.weight)
    assert given.anew == ("classifier",)

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        load_weights(ours, "timm:mobilenetv3_small_050")
    assert "give it as FILE.safetensors" in str(caught.value)
    with pytest.raises(ModelError, match="timm has no trained weights"):
        load_weights(ours, "timm:seresnet18")


def test_weights_of_torchvision_by_their_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    theirs = torchvision.models.resnet18()
    monkeypatch.setattr(
        torchvision.models.ResNet18_Weights, "get_state_dict", lambda *_, **__: theirs.state_dict()
    )
    ours = build("torchvision:resnet18")
    load_weights(ours, "torchvision:ResNet18_Weights.IMAGENET1K_V1")
    assert same(ours, theirs)
    with pytest.raises(ModelError, match="no weights of that name"):
        load_weights(ours, "torchvision:ResNet18_Weights.IMAGENET22K")


def test_torchvision_weights_leave_out_auxiliary_classifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    full = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    monkeypatch.setattr(
        torchvision.models.GoogLeNet_Weights, "get_state_dict", lambda *_, **__: full.state_dict()
    )
    ours = build("torchvision:googlenet")
    load_weights(ours, "torchvision:googlenet")
    assert torch.equal(ours.fc.weight, full.fc.weight)
    assert ours.transform_input  # these weights were trained on inputs of another normalisation
