"""Model folders of Hugging Face: settings, sizes, pixels, and the way there and back."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from foreign_files import change_json, network, same, saved, toolbox

import upernet
from upernet.cli import main
from upernet.config import InferenceConfig
from upernet.errors import UserError
from upernet.store.dialects import huggingface
from upernet.store.dialects.base import Checkpoint
from upernet.store.foreign import read_foreign, write_foreign


@pytest.mark.parametrize("kind", ["plain", "convnext", "swin"])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_to_hugging_face_and_back(tmp_path: Path, kind: str, auxiliary: bool) -> None:
    model, tasks = network(toolbox(kind), auxiliary)
    ours = saved(tmp_path, model, tasks)
    theirs = tmp_path / "theirs"
    assert main(["convert", str(ours), str(theirs), "--to", "huggingface"]) == 0
    said = json.loads((theirs / "config.json").read_text())
    assert said["id2label"] == {"0": "sky", "1": "road", "2": "car"}
    assert said["use_auxiliary_head"] is auxiliary
    again = upernet.load(theirs, reference=True).model
    assert same(model, again)
    assert again.config == model.config


Hub = Callable[[str], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """From the kind of a network to its folder, not to be written to; its pictures have a shorter side of 96."""

    @cache
    def write(kind: str) -> Path:
        place = tmp_path_factory.mktemp(kind) / "hub"
        write_foreign(place, "huggingface", *network(toolbox(kind)), InferenceConfig(short_side=96))
        return place

    return write


@pytest.fixture
def hub(written: Hub, tmp_path: Path) -> Hub:
    """From the kind of a network to a folder of the test's own."""
    return lambda kind: shutil.copytree(written(kind), tmp_path / "hub")


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("config.json", {"backbone_config": {"hidden_act": "relu"}}, "backbone_config.hidden_act 'relu'"),
        ("config.json", {"backbone_config": {"layer_norm_eps": 0.01}}, "backbone_config.layer_norm_eps 0.01"),
        ("config.json", {"backbone_config": "x", "pool_scales": 7}, "pool_scales 7 is not a list of bins"),
        ("config.json", {"pool_scales": [0, 2]}, r"pool_scales \[0, 2\] is not a list of bins"),
        ("config.json", {"pool_scales": None}, r"\[1, 2, 3, 6\] bins by its settings, but holds 2 branches"),
        ("preprocessor_config.json", {"image_mean": "abc"}, "image_mean 'abc' is not three numbers; for example"),
        (
            "preprocessor_config.json",
            {"image_std": [0.2, 0, 0.2]},
            r"image_std \[0.2, 0, 0.2\] is not three numbers above",
        ),
        ("preprocessor_config.json", {"image_std": [0.2, math.nan, 0.2]}, "nan.* is not three numbers above 0"),
        ("preprocessor_config.json", {"rescale_factor": "1"}, "rescale_factor '1' is no positive number"),
    ],
)
def test_settings_of_the_hub_that_no_tensor_shows(hub: Hub, name: str, change: dict[str, Any], says: str) -> None:
    place = hub("swin")
    change_json(place / name, **change)
    with pytest.raises(UserError, match=says) as caught:
        read_foreign([place])
    assert str(caught.value).startswith(str(place / "model.safetensors"))


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        ({}, InferenceConfig(short_side=96)),
        ({"size": {"height": 640, "width": 640}}, InferenceConfig(short_side=640)),
        ({"size": 384}, InferenceConfig(short_side=384)),
        ({"size": {"height": 512, "width": 1024}}, InferenceConfig(short_side=512, max_side=1024)),
        ({"size": {"shortest_edge": 256}}, InferenceConfig(short_side=256)),
        ({"size": {"shortest_edge": 256, "longest_edge": 600}}, InferenceConfig(short_side=256, max_side=600)),
        ({"size": None}, InferenceConfig(short_side=512)),
        ({"do_resize": False}, InferenceConfig()),
    ],
)
def test_the_size_of_the_hub(hub: Hub, prepared: dict[str, Any], expected: InferenceConfig) -> None:
    place = hub("plain")
    change_json(place / "preprocessor_config.json", **prepared)
    assert read_foreign([place])[1].inference == expected


@pytest.mark.parametrize("size", [{"longest_edge": 512}, {"height": 16, "width": 512}, "large"])
def test_a_size_of_the_hub_that_is_unknown_is_left_out(hub: Hub, capsys: pytest.CaptureFixture[str], size: Any) -> None:
    place = hub("plain")
    change_json(place / "preprocessor_config.json", size=size)
    assert read_foreign([place])[1].inference == InferenceConfig()
    line = capsys.readouterr().err
    assert f"size {size!r} is left out" in line and line.count("\n") == 1


@pytest.mark.parametrize(("prepared", "std"), [({}, 1.0), ({"do_rescale": False}, 1 / 255)])
def test_pixels_of_the_hub_that_are_not_normalised(hub: Hub, prepared: dict[str, Any], std: float) -> None:
    place = hub("plain")
    change_json(place / "preprocessor_config.json", do_normalize=False, **prepared)
    config = read_foreign([place])[1].config
    assert (config.mean, config.std) == ((0, 0, 0), (std,) * 3)


def test_pixels_of_the_hub_on_another_scale(hub: Hub) -> None:
    """Mean and deviation are those of pixels times `rescale_factor`; one number stands for three channels."""
    place = hub("plain")
    change_json(place / "preprocessor_config.json", do_rescale=False, image_mean=51, image_std=[51, 51, 102])
    config = read_foreign([place])[1].config
    assert (config.mean, config.std) == ((0.2, 0.2, 0.2), (0.2, 0.2, 0.4))


def test_the_auxiliary_head_of_the_hub_reads_c4(tmp_path: Path) -> None:
    """Not the first level with as many channels."""
    config = replace(toolbox("convnext"), backbone_args={"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 16]})
    model, tasks = network(config)
    write_foreign(tmp_path / "hub", "huggingface", model, tasks, InferenceConfig())
    assert read_foreign([tmp_path / "hub"])[1].tasks["auxiliary"].level == "c4"
    theirs, said = huggingface.write(model, tasks, InferenceConfig())
    theirs["auxiliary_head.convs.0.conv.weight"] = theirs["auxiliary_head.convs.0.conv.weight"][:, :8]
    with pytest.raises(UserError, match="auxiliary head on c4 reads 8 channels; there are c2 8, c3 16, c4 16, c5 16"):
        huggingface.read(Checkpoint("hub", theirs, settings=said))


def test_names_of_the_hub_in_lines() -> None:
    theirs, said = huggingface.write(*network(toolbox("swin")), InferenceConfig())
    name = "backbone.encoder.layers.1.blocks.1.attention.self.{}.weight"
    for part in ("query", "key", "value"):
        del theirs[name.format(part)]
    reading = huggingface.read(Checkpoint("hub", theirs, settings=said))
    assert reading.named("backbone.body.layers_1.blocks.1.attn.qkv.weight") == name.format("{query,key,value}")
