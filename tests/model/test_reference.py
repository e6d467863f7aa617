"""The network against what the reference implementations answer, at full size, with weights seeded by key."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from upernet.config import ModelConfig
from upernet.model import UPerNet
from upernet.tasks.base import Task
from upernet.tasks.dense import DenseTask
from upernet.tasks.image import ImageTask

MMSEG = [
    (r"^backbone\.stem\.7\.", "backbone.body.bn1."),
    (r"^backbone\.stem\.", "backbone.body.conv1."),
    (r"^backbone\.layer", "backbone.body.layer"),
    (r"^decode_head\.psp_modules\.(\d)\.1\.", r"decoder.ppm.branches.\1."),
    (r"^decode_head\.bottleneck\.", "decoder.ppm.out."),
    (r"^decode_head\.lateral_convs\.", "decoder.lateral."),
    (r"^decode_head\.fpn_convs\.", "decoder.smooth."),
    (r"^decode_head\.fpn_bottleneck\.", "decoder.fusion."),
    (r"^decode_head\.conv_seg\.", "heads.semantic.classifier."),
    (r"^auxiliary_head\.convs\.", "heads.auxiliary.convs."),
    (r"^auxiliary_head\.conv_seg\.", "heads.auxiliary.classifier."),
]
CSAIL = [
    (r"^encoder\.conv1\.", "backbone.body.conv1.0."),
    (r"^encoder\.bn1\.", "backbone.body.conv1.1."),
    (r"^encoder\.conv2\.", "backbone.body.conv1.3."),
    (r"^encoder\.bn2\.", "backbone.body.conv1.4."),
    (r"^encoder\.conv3\.", "backbone.body.conv1.6."),
    (r"^encoder\.bn3\.", "backbone.body.bn1."),
    (r"^encoder\.layer", "backbone.body.layer"),
    (r"^decoder\.conv_last\.1\.", "heads.semantic.classifier."),
    (r"^decoder\.(?:conv_fusion|conv_last\.0)\.", "decoder.fusion."),
    (r"^decoder\.ppm_conv\.", "decoder.ppm.branches."),
    (r"^decoder\.ppm_last_conv\.", "decoder.ppm.out."),
    (r"^decoder\.fpn_in\.", "decoder.lateral."),
    (r"^decoder\.fpn_out\.(\d)\.0\.", r"decoder.smooth.\1."),
    (r"^decoder\.scene_head\.2\.", "heads.scene.classifier."),
    (r"^decoder\.scene_head\.0\.", "heads.scene.conv."),
    (r"^decoder\.(\w+)_head\.1\.", r"heads.\1.classifier."),
    (r"^decoder\.(\w+)_head\.0\.", r"heads.\1.convs.0."),
    (r"^(decoder|heads)(.*)\.0\.weight$", r"\1\2.conv.weight"),
    (r"^(decoder|heads)(.*)\.1\.(\w+)$", r"\1\2.bn.\3"),
]


class Reference:
    """One entry of the manifest: weights, input and answers."""

    def __init__(self, folder: Path, tag: str) -> None:
        spec = importlib.util.spec_from_file_location("seeded", folder / "seeded.py")
        assert spec is not None and spec.loader is not None
        seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(seeded)
        entry = json.loads((folder / "seeded_outputs" / "manifest.json").read_text())[tag]
        self.size: tuple[int, int] = tuple(entry["size"])
        self.every: int = entry["sampled_every"]
        self.weights: dict[str, Any] = seeded.weights(entry["shapes"], entry["seed"])
        self.input = torch.from_numpy(seeded.image(*self.size, entry["seed"]))
        self.answers = np.load(folder / "seeded_outputs" / f"{tag}.npz")

    def run(self, config: ModelConfig, tasks: dict[str, Task], table: list[tuple[str, str]]) -> dict[str, Tensor]:
        """Our logits by task."""
        network = UPerNet(config, tasks).eval()
        own = network.state_dict()
        state = {}
        for key, value in self.weights.items():
            if "_running_iter" in key or "_tmp_running" in key:
                continue
            for pattern, name in table:
                key = re.sub(pattern, name, key)
            state[key] = torch.from_numpy(np.asarray(value)).reshape(own[key].shape)
        network.load_state_dict(state)
        with torch.inference_mode():
            return network(self.input * network.std + network.mean, tasks)

    def assert_close(self, ours: Tensor, name: str) -> None:
        """Within a thousandth of the deviation of the reference's answer."""
        theirs = torch.from_numpy(self.answers[name])
        ours = ours[..., :: self.every, :: self.every] if ours.ndim == 4 else ours
        assert ours.shape == theirs.shape
        difference = ((ours - theirs).abs().max() / theirs.std()).item()
        print(f"{name}: {difference:.1e} of the deviation")
        assert difference <= 1e-3

    def assert_same_classes(self, ours: Tensor, name: str) -> None:
        """On at least 99.99 % of the positions."""
        theirs = torch.from_numpy(self.answers[name]).long()
        assert ours.shape == theirs.shape
        agreement = (ours == theirs).double().mean().item()
        print(f"{name}: {agreement:.4%} equal")
        assert agreement >= 0.9999


def dense(classes: int, **options: Any) -> DenseTask:
    return DenseTask(labels=[f"class {i}" for i in range(classes)], **options)


@pytest.mark.parametrize(
    ("tag", "classes"),
    [("mmseg_r50_150_256x320_s1", 150), ("mmseg_r50_21_203x331_s4", 21), ("mmseg_r50_ac_19_257x257_s3", 19)],
)
def test_toolbox(fixtures_dir: Path, tag: str, classes: int) -> None:
    reference = Reference(fixtures_dir, tag)
    config = ModelConfig(align_corners="_ac_" in tag)
    tasks: dict[str, Task] = {
        "semantic": dense(classes, convs=0, dropout=0.1),
        "auxiliary": dense(classes, convs=1, width=256, level="c4", auxiliary=True, dropout=0.1),
    }
    logits = reference.run(config, tasks, MMSEG)
    reference.assert_close(logits["semantic"], "logits")
    reference.assert_close(logits["auxiliary"], "aux_logits")
    scores = F.interpolate(logits["semantic"], reference.size, mode="bilinear", align_corners=config.align_corners)
    reference.assert_same_classes(scores.argmax(1), "prediction")


def test_authors_pixel_model(fixtures_dir: Path) -> None:
    reference = Reference(fixtures_dir, "csail_semseg_150_224x288_s9")
    config = ModelConfig(backbone="resnet50s", ppm_order="upsample_conv")
    logits = reference.run(config, {"semantic": dense(150, convs=0)}, CSAIL)["semantic"]
    reference.assert_close(logits.log_softmax(1), "logits")
    scores = F.interpolate(logits, reference.size, mode="bilinear", align_corners=False)
    reference.assert_same_classes(scores.argmax(1), "prediction")


def test_authors_multitask_model(fixtures_dir: Path, spec_dir: Path) -> None:
    reference = Reference(fixtures_dir, "csail_unified_150_256x320_s10")
    config = ModelConfig(backbone="resnet50s", ppm_order="upsample_conv", pooling="precise")
    tasks: dict[str, Task] = {
        "scene": ImageTask(labels=[f"class {i}" for i in range(365)], width=512),
        "object": dense(336, convs=1, width=512),
        "part": dense(427, convs=1, width=512),
        "material": dense(26, convs=1, width=512, level="p2"),
    }
    logits = reference.run(config, tasks, CSAIL)
    for name in ("scene", "object", "material"):
        reference.assert_close(logits[name].log_softmax(1), f"{name}_logprob")
    for name in ("object", "material"):
        reference.assert_same_classes(logits[name].argmax(1), f"{name}_argmax")
    groups = logits["part"].split(part_groups(spec_dir), dim=1)
    reference.assert_close(torch.cat([group.log_softmax(1) for group in groups], dim=1), "part_logprob")
    part = torch.stack([group.argmax(1) for group in groups], dim=1)
    reference.assert_same_classes(part[..., ::2, ::2], "part_argmax")


def part_groups(spec_dir: Path) -> list[int]:
    """Channels of each object's group of parts, background included."""
    table = json.loads((spec_dir / "broden_plus" / "object_parts.json").read_text())
    return [group["channels"] for group in table["groups"]]
