"""The grid of pictures of a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_data import Memory
from PIL import Image

import upernet.engine.preview as preview
from upernet.config import InferenceConfig, ModelConfig
from upernet.data.config import DataConfig, SourceConfig, TargetConfig
from upernet.data.mixture import bind_sources
from upernet.engine.preview import CELL, preview_sheet
from upernet.labels import ClassSets, Labels
from upernet.model import UPerNet
from upernet.model.build import build_model
from upernet.tasks import Object, Part, Scene, Task

TASKS: dict[str, Task] = {
    "object": Object(labels=["low", "middle", "high"], width=8),
    "scene": Scene(labels=["low", "middle", "high"], width=8),
    "part": Part(parts={"middle": ["low", "high"]}, width=8),
}


@pytest.fixture(scope="module")
def model() -> UPerNet:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone="test_resnet", width=8), TASKS).eval()


def sheet(model: UPerNet, captions: list[str] | None = None, **sources: SourceConfig) -> Image.Image:
    bound = bind_sources(DataConfig(sources=sources), TASKS)
    return preview_sheet(model, TASKS, bound, InferenceConfig(short_side=32), torch.device("cpu"))


def test_a_row_per_source_and_two_pictures_per_map(model: UPerNet, monkeypatch: pytest.MonkeyPatch) -> None:
    captions: list[str] = []
    caption = preview._caption

    def noted(array: np.ndarray, text: str) -> Image.Image:
        captions.append(text)
        return caption(array, text)

    monkeypatch.setattr(preview, "_caption", noted)
    page = sheet(
        model,
        maps=SourceConfig(
            dataset=Memory(),
            targets={
                "object": TargetConfig(),
                "part": TargetConfig(classes={name: f"middle/{name}" for name in ("low", "high")} | {"middle": None}),
            },
        ),
        whole=SourceConfig(dataset=Memory(dense=False, size=(64, 32)), targets={"scene": TargetConfig()}),
        void=SourceConfig(dataset=Memory(dense=False, unlabelled=True), targets={"scene": TargetConfig()}),
        silent=SourceConfig(dataset=Memory(), targets={"object": TargetConfig(evaluate=False)}),
        training=SourceConfig(dataset=Memory(), targets={"object": TargetConfig()}, val=None),
    )
    assert captions[:5] == ["maps", "object: truth", "object: predicted", "part: truth", "part: predicted"]
    assert captions[5] == "whole"
    assert captions[6] in {"scene: low (right)", "scene: middle (low)", "scene: high (low)"}
    assert captions[7] == "void"
    assert captions[8].startswith("scene: ")
    assert captions[8].endswith(" (unlabelled)")
    assert captions[9:] == ["silent"]
    assert page.width == 5 * CELL
    wide, tall = round(48 * (CELL - 4) / 64) + 22, round(64 * (CELL - 4) / 32) + 22
    assert page.height == 3 * wide + tall
    assert np.asarray(page)[:, : CELL // 2].std() > 10


def test_truth_is_shown_in_the_colours_of_the_classes() -> None:
    classes = Labels.of({"sky": "#87ceeb", "car": "#0000ff", "bus": "#00ff00"})
    sets = ClassSets.of(["vehicle", "sky"], classes, {"vehicle": ["car", "bus"]})
    shown = preview._colourise(np.array([[0, 1, -1]]), sets)
    assert shown.dtype == np.uint8
    assert shown.tolist() == [[[150, 150, 150], [135, 206, 235], [0, 0, 0]]]


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
def test_elongated_pictures_have_a_caption_too(size: tuple[int, int]) -> None:
    assert preview._caption(np.zeros((*size, 3), np.uint8), "thin").width == CELL
