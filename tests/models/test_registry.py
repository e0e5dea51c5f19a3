"""Names of models: what they build, and what is said when they build nothing."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
import torch

from hwprune.errors import ModelError, UsageError
from hwprune.models.registry import build, default_image_size, known_models

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


def test_every_known_name_has_an_image_size_and_an_alias_works() -> None:
    names = [name for name in known_models() if "NAME" not in name and "FUNCTION" not in name]
    assert {name for name in names if default_image_size(name) == 224} == {
        "vgg16_bn",
        "mobilenet_v1",
        "mobilenet_v2",
    }
    assert len(names) == 9
    assert (
        build("resnet20_cifar", num_classes=10).state_dict().keys() == build("resnet20").state_dict().keys()
    )
    assert default_image_size("resnet110_cifar") == 32


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("googlenet", 64), ("inception_v3", 96)])
def test_torchvision_networks_return_one_tensor_even_in_training(name: str, size: int) -> None:
    model = build(f"torchvision:{name}", num_classes=6)
    assert model.training
    output = model(torch.randn(2, 3, size, size))
    assert isinstance(output, torch.Tensor)
    assert output.shape == (2, 6)


def test_image_sizes_of_other_packages() -> None:
    assert default_image_size("torchvision:resnet50") == 224
    assert default_image_size("torchvision:inception_v3") == 299
    assert default_image_size("torchvision:efficientnet_b3") == 300
    assert default_image_size("anything.py:make") == 224


def test_timm_network() -> None:
    pytest.importorskip("timm", reason="timm is an extra")
    assert build("timm:resnet18", num_classes=3).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert default_image_size("timm:efficientnet_b3") == 288
    with pytest.raises(ModelError, match=r"did you mean resnet18"):
        build("timm:resnet18x")


def test_missing_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError) as caught:
        build("timm:resnet18")
    assert "pip install 'hwprune[timm]'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet21", "did you mean resnet20"),
        ("mobilenetv2", "mobilenet_v2"),
        ("resnet50", "write torchvision:resnet50"),
        ("torchvision:resnet51", "did you mean resnet50"),
        ("torchvision:qqqq", "names torchvision lists"),
        ("torchvision:fcn_resnet50", "did you mean"),
        ("torchvison:resnet50", "did you mean torchvision"),
        ("", "resnet20"),
    ],
)
@pytest.mark.parametrize("ask", [build, default_image_size])
def test_unknown_names_get_the_nearest(ask: object, name: str, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        ask(name)
    assert said in str(caught.value)


@pytest.mark.parametrize("classes", [0, -3])
def test_no_classes(classes: int) -> None:
    with pytest.raises(UsageError, match="at least one class"):
        build("resnet20", num_classes=classes)


@pytest.mark.parametrize(
    ("parameters", "made"),
    [
        ("num_classes", "nn.Linear(4, num_classes)"),
        ("*, num_classes=2", "nn.Linear(4, num_classes)"),
        ("**options", "nn.Linear(4, **{'out_features': options['num_classes']})"),
        ("", "nn.Linear(4, 5)"),
        ("width=4, image_size=9", "nn.Linear(width, image_size - 27)"),
    ],
)
def test_user_function_gets_what_it_accepts(tmp_path: Path, parameters: str, made: str) -> None:
    file = write(tmp_path / "net.py", f"from torch import nn\ndef make({parameters}):\n    return {made}\n")
    assert build(f"{file}:make", num_classes=5, image_size=32).out_features == 5


def test_user_file_may_hold_a_class_and_import_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "neighbour_of_net.py", "WIDTH = 11\n")
    file = write(
        tmp_path / "net.py",
        """
        from dataclasses import dataclass
        from neighbour_of_net import WIDTH
        from torch import nn

        @dataclass
        class Settings:
            width: int = WIDTH

        class Net(nn.Module):
            def __init__(self, num_classes):
                super().__init__()
                self.layer = nn.Linear(Settings().width, num_classes)
        """,
    )
    before = list(sys.path)
    assert build(f"{file}:Net", num_classes=3).layer.weight.shape == (3, 11)
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        ("def make():\n    return 3\n", "make", ("does not return a network", "int")),
        ("def make():\n    return 3\n", "mak", ("no function 'mak'", "did you mean make")),
        ("make = 3\n", "make", ("no function 'make'", "make is a int")),
        ("from torch import nn\nnet = nn.ReLU()\n", "net", ("no function 'net'", "ReLU")),
        ("x = 1\nraise KeyError('boom')\n", "make", ("failed while it was being loaded", "line 2", "boom")),
        ("def make():\n    pass\n\n    return 1 / 0\n", "make", ("make() failed", "line 4", "ZeroDivision")),
        ("def make(:\n", "make", ("failed while it was being loaded", "SyntaxError", "line 1")),
        ("import sys\nsys.exit(3)\n", "make", ("failed while it was being loaded", "SystemExit")),
        ("import no_such_package_here\n", "make", ("no_such_package_here",)),
    ],
)
def test_faults_of_user_files_are_told(
    tmp_path: Path, text: str, function: str, said: tuple[str, ...]
) -> None:
    file = write(tmp_path / "net.py", text)
    with pytest.raises(ModelError) as caught:
        build(f"{file}:{function}")
    for words in (*said, "net.py"):
        assert words in str(caught.value)


def test_user_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such Python file") as caught:
        build(f"{tmp_path}/absent.py:make")
    assert "absent.py" in str(caught.value)


@pytest.mark.parametrize("name", ["net.py", "net.py:", "net.py:not-a-name"])
def test_user_file_without_a_function(name: str) -> None:
    with pytest.raises(UsageError, match="function that builds it"):
        build(name)
