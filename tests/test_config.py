"""hwprune.toml: what is written can be read, and what is wrong is told completely."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwprune.config import Config, DataConfig, ModelConfig, load_config, save_config
from hwprune.errors import ConfigError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = replace(Config(), seed=7, model=ModelConfig(name="a.py:b", exclude=("x.*", 'odd"name')))
    save_config(tmp_path / "hwprune.toml", config)
    assert load_config(tmp_path / "hwprune.toml") == config


@given(text=st.text(max_size=30))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("c") / "hwprune.toml"
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    config = replace(Config(), data=DataConfig(source=text))
    save_config(path, config)
    assert load_config(path) == config


def test_every_setting_is_explained(tmp_path: Path) -> None:
    save_config(tmp_path / "hwprune.toml", Config())
    text = (tmp_path / "hwprune.toml").read_text()
    for section in fields(Config):
        if section.name not in ("recipe", "seed"):
            assert f"[{section.name}]" in text
    for line in text.splitlines():
        if " = " in line:
            assert len(line.partition("  # ")[2]) > 10, line


def test_problems_of_all_sections_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hwprune.toml"
    lines = ["sed = 1", "[model]", "name = 3", "[data]", "image_size = -5", "[training]", "lr = -1.0"]
    path.write_text("\n".join([*lines, "[search]", 'score = "luck"', ""]))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    text = str(caught.value)
    for words in ("did you mean seed", "model.name = 3", "image_size=-5", "lr=-1.0", "search.score = 'luck'"):
        assert words in text


def test_a_setting_that_was_replaced_names_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "hwprune.toml"
    path.write_text("[data]\nsub_val_per_class = 30\n")
    with pytest.raises(ConfigError, match=r"write data\.sub_val, the images of all classes"):
        load_config(path)


def test_a_normalisation_is_three_and_three_numbers(tmp_path: Path) -> None:
    path = tmp_path / "hwprune.toml"
    path.write_text("[data]\nmean = [0.5, 0.5, 1]\nstd = [0.5, 0.25, 1]\n")
    config = load_config(path)
    assert (config.data.mean, config.data.std) == ((0.5, 0.5, 1.0), (0.5, 0.25, 1.0))
    save_config(path, config)
    assert load_config(path) == config
    for lines, words in (
        ("mean = [0.5, 0.5]\nstd = [1.0, 1.0, 1.0]", "mean=[0.5, 0.5] (allowed: three numbers"),
        ("mean = [0.5, 0.5, 0.5]", "one is set without the other"),
        ("mean = [123.0, 116.0, 103.0]\nstd = [1.0, 1.0, 0.0]", "0 to 1, the scale of the pixels"),
        ('mean = "imagenet"', "allowed: a list of finite numbers"),
    ):
        path.write_text(f"[data]\n{lines}\n")
        with pytest.raises(ConfigError) as caught:
            load_config(path)
        assert words in str(caught.value)


@pytest.mark.parametrize("content", ["[model", "\xff", "a = 1 = 2", "[model]\nname = 'x'\nname = 'y'"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hwprune.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="not a TOML file"):
        load_config(path)


def test_settings_need_no_torch() -> None:
    import subprocess

    code = "import hwprune.config, hwprune.results, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_recomputing_without_blocks_is_told_before_anything_is_trained(tmp_path):
    path = tmp_path / "hwprune.toml"
    path.write_text("[pruningnet]\nrecompute = true\n")
    with pytest.raises(ConfigError, match="without tied"):
        load_config(path)
    path.write_text('[model]\ntied = ["layer?.*"]\n[pruningnet]\nrecompute = true\n')
    assert load_config(path).pruningnet.recompute


def test_blocks_of_earlier_settings_are_called_tied(tmp_path):
    path = tmp_path / "hwprune.toml"
    path.write_text('[model]\nblocks = ["layer?.*"]\n')
    with pytest.raises(ConfigError, match=r"model\.blocks is no setting any more: write model\.tied"):
        load_config(path)
