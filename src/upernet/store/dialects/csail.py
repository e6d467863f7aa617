"""The authors' two code bases: an encoder file and a decoder file, plain state dicts."""

from __future__ import annotations

import re
from dataclasses import replace

from upernet.config import PAPER_INFERENCE, ModelConfig
from upernet.contract import Task
from upernet.data.sets.broden_plus import broden_plus
from upernet.errors import UserError
from upernet.store.dialects.backbones import identify_backbone
from upernet.store.dialects.base import Checkpoint, Reading, flip_stem, rgb_values, semantic_tasks
from upernet.store.dialects.keys import KeyTable, Row, conv_norm
from upernet.tasks import Material, Object, Part, Scene

NAME = "csail"
SOFTWARE = "the authors' code"

_COMMON: list[Row] = [
    ("encoder.conv1.{x}", "backbone.body.conv1.0.{x}"),
    ("encoder.bn1.{x}", "backbone.body.conv1.1.{x}"),
    ("encoder.conv2.{x}", "backbone.body.conv1.3.{x}"),
    ("encoder.bn2.{x}", "backbone.body.conv1.4.{x}"),
    ("encoder.conv3.{x}", "backbone.body.conv1.6.{x}"),
    ("encoder.bn3.{x}", "backbone.body.bn1.{x}"),
    ("encoder.layer*", "backbone.body.layer*"),
    *conv_norm("decoder.ppm_conv.{i}", "decoder.ppm.branches.{i}", "0", "1"),
    *conv_norm("decoder.ppm_last_conv", "decoder.ppm.out", "0", "1"),
    *conv_norm("decoder.fpn_in.{i}", "decoder.lateral.{i}", "0", "1"),
    *conv_norm("decoder.fpn_out.{i}.0", "decoder.smooth.{i}", "0", "1"),
]
_PIXEL: list[Row] = [
    *conv_norm("decoder.conv_last.0", "decoder.fusion", "0", "1"),
    ("decoder.conv_last.1.{x}", "heads.semantic.classifier.{x}"),
]
_MULTITASK: list[Row] = [
    *conv_norm("decoder.conv_fusion", "decoder.fusion", "0", "1"),
    *conv_norm("decoder.scene_head.0", "heads.scene.conv", "0", "1"),
    ("decoder.scene_head.2.{x}", "heads.scene.classifier.{x}"),
    *(
        row
        for t in ("object", "part", "material")
        for row in conv_norm(f"decoder.{t}_head.0", f"heads.{t}.convs.0", "0", "1")
    ),
    *((f"decoder.{t}_head.1.{{x}}", f"heads.{t}.classifier.{{x}}") for t in ("object", "part", "material")),
]
# Buffers of the authors' own batch norm beside its statistics.
_DROPPED = ["*._tmp_running_mean", "*._tmp_running_var", "*._running_iter"]
_PIXEL_TABLE, _MULTITASK_TABLE = KeyTable(_COMMON + _PIXEL, _DROPPED), KeyTable(_COMMON + _MULTITASK, _DROPPED)
# Their evaluators limit the longer side to 1000 pixels where the paper says 1200.
_INFERENCE = replace(PAPER_INFERENCE, max_side=1000)
_CAFFE_MEAN = (122.7717, 115.9465, 102.9801)


def matches(keys: set[str]) -> bool:
    """Whether these are the tensor names of the authors' encoder and decoder, or of one of the two."""
    # Their encoder numbers three convolutions of the stem, which no other ResNet does.
    encoder = {"encoder.conv3.weight", "encoder.bn3.weight", "encoder.layer1.0.conv1.weight"}
    return encoder <= keys or any(k.startswith("decoder.ppm_last_conv.") for k in keys)


def read(checkpoint: Checkpoint) -> Reading:
    """Interpret the pair; see `Dialect.read`. The multi-task model takes BGR, so its stem is flipped."""
    where, keys = checkpoint.name, checkpoint.tensors.keys()
    for half, sign in (("encoder", "encoder.layer1.0.conv1.weight"), ("decoder", "decoder.ppm_last_conv.0.weight")):
        if sign not in keys:
            raise UserError(
                f"{where}: without its {half}; give both files, encoder_epoch_N.pth and decoder_epoch_N.pth"
            )
    multitask = "decoder.conv_fusion.0.weight" in keys
    table = _MULTITASK_TABLE if multitask else _PIXEL_TABLE
    tensors = table.to_ours(checkpoint.tensors, where)
    name, args, channels = identify_backbone(tensors, where, table.their_name)
    tensors = {k: v.reshape(v.shape[:2]) if k == "heads.scene.classifier.weight" else v for k, v in tensors.items()}
    width = tensors["decoder.fusion.conv.weight"].shape[0]
    if not multitask:
        config = ModelConfig(backbone=name, backbone_args=args, width=width, ppm_order="upsample_conv")
        tasks = semantic_tasks(tensors, channels, None, None, where, dropout=0.0)
        return Reading(config, tasks, _INFERENCE, tensors, table.their_name)
    config = ModelConfig(
        backbone=name,
        backbone_args=args,
        width=width,
        pooling="precise",
        ppm_order="upsample_conv",
        mean=rgb_values(_CAFFE_MEAN, "mean", where, 255),
        std=rgb_values((1, 1, 1), "std", where, 255),
    )
    counts = {k.split(".")[1]: len(v) for k, v in tensors.items() if re.fullmatch(r"heads\.\w+\.classifier\.bias", k)}
    tasks = _unified_tasks(counts, tensors["heads.object.convs.0.conv.weight"].shape[0], where)
    return Reading(config, tasks, _INFERENCE, flip_stem(tensors), table.their_name)


def _unified_tasks(counts: dict[str, int], width: int, where: str) -> dict[str, Task]:
    """The four tasks of the released model on Broden+'s tables.

    Raises:
        UserError: If the heads do not have as many classes as the tables.
    """
    tables = broden_plus()
    tasks: dict[str, Task] = {
        "scene": Scene(labels=tables["scene"], width=width, weight=0.25),
        "object": Object(labels=tables["object"], convs=1, width=width),
        "part": Part(parts=tables["part"], convs=1, width=width, weight=0.5),
        "material": Material(labels=tables["material"], convs=1, width=width),
    }
    for name, task in tasks.items():
        if counts.get(name) != len(task.classes):
            raise UserError(f"{where}: the {name} head has {counts.get(name)} classes; Broden+ has {len(task.classes)}")
    return tasks
