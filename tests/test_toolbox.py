"""Beside MMSegmentation's own code, where it is installed: steps of training, windows, and means over views."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from upernet.config import InferenceConfig
from upernet.inference.answers import Answers
from upernet.inference.views import run_network
from upernet.model.build import build_model, for_inference
from upernet.store.foreign import write_foreign
from upernet.store.loading import load_model

pytest.importorskip("mmengine")
pytest.importorskip("mmcv")
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.fixture(autouse=True)
def toolbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "mmcv._ext", mock.MagicMock())  # compiled operations that no UPerNet uses
    pytest.importorskip("mmseg.models")
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        # Of the losses, of a tensor of weights, of what a step moved in it, of what it moved in statistics.
        (torch.float32, (5e-7, 1e-3, 1e-2, 1e-3)),
        (torch.float64, (1e-10, 1e-10, 1e-10, 1e-10)),
    ],
    ids=str,
)
def test_steps_from_the_same_state_are_the_toolbox_s(
    kind: torch.dtype, most: tuple[float, float, float, float]
) -> None:
    """Over forty steps they are 2e-7, 8e-5, 6e-4 and 5e-5 in float32, and 2e-16, 3e-13, 9e-13 and 4e-14 in float64.

    Biases start from 0, so that their differences are large beside them. At 128 pixels all pools average over powers of
    two, which their float32 weights hold exactly.
    """
    place = Path(__file__).parent.parent / "benchmarks" / "training_parity.py"
    spec = importlib.util.spec_from_file_location("training_parity", place)
    assert spec is not None
    assert spec.loader is not None
    parity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parity)
    losses, weights, statistics = parity.from_the_same_state(steps=4, images=2, side=128, kind=kind)
    found = max(losses), max(whole for whole, _ in weights), max(moved for _, moved in weights), max(statistics)
    assert all(one < bound for one, bound in zip(found, most, strict=True)), found


def reference_mean(network: Any, image: np.ndarray, config: InferenceConfig) -> Tensor:
    """(K, H, W) probabilities: every scale and its mirror image, each through `predict`, averaged."""
    from mmcv.transforms import Resize
    from mmseg.structures import SegDataSample

    means = []
    for ratio in config.scales:
        if config.scale_of == "box":
            box = int(config.max_side * ratio), int(config.short_side * ratio)  # type: ignore[operator]
            resize = Resize(scale=box, keep_ratio=True)
        else:
            resize = Resize(scale_factor=ratio, keep_ratio=True)
        shown = resize({"img": image[..., ::-1].copy()})["img"]
        for flip in (False, True):
            pixels = torch.from_numpy((shown[:, ::-1] if flip else shown).copy()).permute(2, 0, 1)
            size = tuple(pixels.shape[1:])
            told = {"ori_shape": image.shape[:2], "img_shape": size, "pad_shape": size, "flip": flip}
            sample = SegDataSample(metainfo=told | {"flip_direction": "horizontal"})
            data = network.data_preprocessor({"inputs": [pixels], "data_samples": [sample]}, False)
            (answer,) = network.predict(data["inputs"], data["data_samples"])
            means.append(answer.seg_logits.data.softmax(0))
    return torch.stack(means).mean(0)


@pytest.mark.parametrize("scale_of", ["box", "image"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("window", [(65, 97), None])
@pytest.mark.parametrize("size", [(75, 131), (101, 64)])
def test_windows_scales_and_mirror_images_are_the_toolbox_s(
    size: tuple[int, int],
    window: tuple[int, int] | None,
    align_corners: bool,
    scale_of: Any,
    fixtures_dir: Path,
    tmp_path: Path,
) -> None:
    from mmengine import Config
    from mmseg.registry import MODELS

    given, tasks, _ = load_model(fixtures_dir / "mmseg_tiny" / "checkpoint.pth")
    network = for_inference(build_model(replace(given.config, align_corners=align_corners), tasks))
    network.load_state_dict(given.state_dict())
    config = InferenceConfig(
        short_side=103, max_side=411, window=window, stride=window and (43, 50), scales=SCALES, flip=True,
        scale_of=scale_of,
    )  # fmt: skip
    write_foreign(tmp_path / "model.pth", "mmseg", network, tasks, config)
    checkpoint = torch.load(tmp_path / "model.pth", weights_only=True)
    theirs = MODELS.build(Config.fromstring(checkpoint["meta"]["cfg"], ".py").model).eval()
    theirs.load_state_dict(checkpoint["state_dict"])
    coarse = np.random.default_rng(size[0]).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    with torch.inference_mode():
        expected = reference_mean(theirs, image, config)
        views = run_network(network, torch.from_numpy(image).permute(2, 0, 1)[None], config, ["semantic"])
        bands = Answers(views, {"semantic": tasks["semantic"]}).bands(size, ["semantic"], probabilities=True)
        found = torch.cat([band.probabilities["semantic"] for band in bands], dim=2)[0]
    assert (found - expected).abs().max() < 1e-4
    assert (found.argmax(0) == expected.argmax(0)).float().mean() > 0.999
