"""Does other software answer the same? Its models opened here, and models written for it opened there.

In an environment of its own, beside `mmsegmentation mmcv-lite==2.1.0 mmengine mmpretrain ftfy regex transformers
segmentation-models-pytorch`:

    python benchmarks/other_software.py answer FOLDER        (there) models of the toolbox, their files and answers
    python benchmarks/other_software.py compare FOLDER       (here)  the largest differences, and files written for them
    python benchmarks/other_software.py open FOLDER          (there) these files opened, and the largest differences
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

import torch

TOOLBOX = {
    "R-18 V1c": ({"type": "ResNetV1c", "depth": 18}, [64, 128, 256, 512]),
    "R-50 V1d": ({"type": "ResNetV1d", "depth": 50}, [256, 512, 1024, 2048]),
    "Swin-T": ({"type": "SwinTransformer"}, [96, 192, 384, 768]),
    "ConvNeXt-T": (
        {"type": "mmpretrain.ConvNeXt", "arch": "tiny", "out_indices": [0, 1, 2, 3], "gap_before_final_norm": False},
        [96, 192, 384, 768],
    ),
}
SIZE = (150, 203)


def randomise(model: torch.nn.Module) -> None:
    """Weights that keep activations near unit size, and statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(noise.abs() * 0.1 + 0.9)
        elif value.ndim > 1:
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        elif name.endswith("weight"):
            value.copy_(noise * 0.1 + 0.8)
        else:
            value.copy_(noise * 0.1)


def answer(folder: Path) -> None:
    """Build the toolbox's UPerNets, and save each with its answer to one image."""
    sys.modules["mmcv._ext"] = mock.MagicMock()  # compiled operations that no UPerNet uses
    import mmpretrain.models  # noqa: F401
    import mmseg.models  # noqa: F401
    from mmseg.registry import MODELS

    folder.mkdir(parents=True, exist_ok=True)
    x = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for name, (backbone, channels) in TOOLBOX.items():
        shared = {"num_classes": 150, "norm_cfg": {"type": "BN"}, "align_corners": False}
        head = {"type": "UPerHead", "in_channels": channels, "in_index": [0, 1, 2, 3], "channels": 64, **shared}
        aux = {"type": "FCNHead", "in_channels": channels[2], "in_index": 2, "channels": 32, "num_convs": 1}
        config = {
            "type": "EncoderDecoder",
            "backbone": backbone,
            "decode_head": head,
            "auxiliary_head": {**aux, "concat_input": False, **shared},
            "test_cfg": {"mode": "whole"},
        }
        model = MODELS.build(config).eval()
        randomise(model)
        with torch.no_grad():
            features = model.extract_feat(x)
            answers = {"semantic": model.decode_head(features), "auxiliary": model.auxiliary_head(features)}
        torch.save({"meta": {}, "state_dict": model.state_dict()}, folder / f"{name}.pth")
        torch.save({"x": x, **answers}, folder / f"{name}.answer")


def compare(folder: Path) -> None:
    """Open what `answer` saved, then write models for Hugging Face and smp with our own answers beside them."""
    import upernet
    from upernet.checkpoint import build_model
    from upernet.config import InferenceConfig, ModelConfig
    from upernet.dialects import write_foreign
    from upernet.tasks import Semantic

    for name in TOOLBOX:
        model = upernet.load(folder / f"{name}.pth").model
        saved = torch.load(folder / f"{name}.answer", weights_only=True)
        with torch.inference_mode():
            ours = model(saved["x"] * model.std + model.mean, ["semantic", "auxiliary"])
        differences = [f"{task} {difference(ours[task], saved[task]):.1e}" for task in ours]
        print(f"mmseg {name} ({model.config.backbone}): {', '.join(differences)}")
    x = torch.randn(1, 3, 160, 224, generator=torch.Generator().manual_seed(2))
    written = {
        "huggingface-resnet": ModelConfig(backbone="resnet50", width=64),
        "huggingface-convnext": ModelConfig(backbone="convnext_tiny", width=64, level_norm=True),
        "huggingface-swin": ModelConfig(
            backbone="swin_tiny_patch4_window7_224", width=64, level_norm=True, level_norm_eps=1e-5
        ),
        "smp-resnet": ModelConfig(backbone="resnet50", width=64, level_norm=True, logits_align_corners=True),
    }
    for name, config in written.items():
        tasks = {"semantic": Semantic(labels="ade20k")}
        model = build_model(config, tasks).eval()
        randomise(model)
        write_foreign(folder / name, name.partition("-")[0], model, tasks, InferenceConfig(short_side=512))
        with torch.inference_mode():
            logits = model(x * model.std + model.mean)["semantic"]
            size = (x.shape[2], x.shape[3])
            corners = model.logits_align_corners
            full = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=corners)
        torch.save({"x": x, "semantic": full}, folder / f"{name}.answer")
        print(f"written: {folder / name}")


def open_there(folder: Path) -> None:
    """Open what `compare` wrote with the libraries it was written for."""
    import segmentation_models_pytorch as smp
    from transformers import UperNetForSemanticSegmentation

    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        saved = torch.load(folder / f"{path.name}.answer", weights_only=True)
        with torch.no_grad():
            if path.name.startswith("smp"):
                theirs = smp.from_pretrained(str(path)).eval()(saved["x"])
            else:
                theirs = UperNetForSemanticSegmentation.from_pretrained(str(path)).eval()(saved["x"]).logits
        print(f"{path.name}: {difference(theirs, saved['semantic']):.1e}")


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference in standard deviations of the second."""
    return ((a - b).abs().max() / b.std()).item()


if __name__ == "__main__":
    {"answer": answer, "compare": compare, "open": open_there}[sys.argv[1]](Path(sys.argv[2]))
