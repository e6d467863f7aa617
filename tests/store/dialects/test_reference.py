"""Checkpoints of each kind, opened as users do, against what the software that made them answers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import upernet
from upernet.model import UPerNet

ROOT = Path(__file__).parents[3]
MEASURED: dict[str, tuple[float, float]] = {}
"""Largest difference and smallest agreement by fixture, for `docs/convert.md`."""


class Reference:
    """One entry of the manifest: weights, input and answers."""

    def __init__(self, folder: Path, tag: str) -> None:
        spec = importlib.util.spec_from_file_location("seeded", folder / "seeded.py")
        assert spec is not None and spec.loader is not None
        seeded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(seeded)
        entry = json.loads((folder / "seeded_outputs" / "manifest.json").read_text())[tag]
        self.tag = tag
        self.size: tuple[int, int] = tuple(entry["size"])
        self.every: int = entry["sampled_every"]
        weights = seeded.weights(entry["shapes"], entry["seed"])
        self.weights = {k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()}
        self.input = torch.from_numpy(seeded.image(*self.size, entry["seed"]))
        self.answers = np.load(folder / "seeded_outputs" / f"{tag}.npz")

    def run(self, network: UPerNet, bgr: bool = False) -> dict[str, Tensor]:
        """Our logits by task, auxiliary ones too."""
        x = self.input.flip(1) if bgr else self.input
        with torch.inference_mode():
            return network(x * network.std + network.mean, network.tasks)

    def assert_close(self, ours: Tensor, name: str) -> None:
        """Within a thousandth of the deviation of the reference's answer."""
        theirs = torch.from_numpy(self.answers[name])
        ours = ours[..., :: self.every, :: self.every] if ours.ndim == 4 else ours
        assert ours.shape == theirs.shape
        difference = ((ours - theirs).abs().max() / theirs.std()).item()
        worst, agreement = MEASURED.get(self.tag, (0.0, 1.0))
        MEASURED[self.tag] = max(difference, worst), agreement
        assert difference <= 1e-3

    def assert_same_classes(self, ours: Tensor, name: str) -> None:
        """On at least 99.99 % of the positions."""
        theirs = torch.from_numpy(self.answers[name]).long()
        assert ours.shape == theirs.shape
        agreement = (ours == theirs).double().mean().item()
        difference, smallest = MEASURED.get(self.tag, (0.0, 1.0))
        MEASURED[self.tag] = difference, min(agreement, smallest)
        assert agreement >= 0.9999

    def assert_same_segmentation(self, network: UPerNet) -> None:
        """Logits, auxiliary logits where the reference gives them, and classes at the input's size."""
        logits = self.run(network)
        own = logits["semantic"].log_softmax(1) if "csail" in self.tag else logits["semantic"]
        self.assert_close(own, "logits")
        if "aux_logits" in self.answers:
            self.assert_close(logits["auxiliary"], "aux_logits")
        corners = network.upsampling_align_corners
        scores = F.interpolate(logits["semantic"], self.size, mode="bilinear", align_corners=corners)
        self.assert_same_classes(scores.argmax(1), "prediction")


def toolbox_file(reference: Reference, path: Path) -> Path:
    head = {"type": "UPerHead", "align_corners": "_ac_" in reference.tag}
    text = f"model = dict(type='EncoderDecoder', decode_head={head!r})"
    torch.save({"meta": {"config": text}, "state_dict": reference.weights}, path)
    return path


def hub_folder(reference: Reference, path: Path) -> Path:
    path.mkdir()
    save_file(reference.weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "upernet"}))
    return path


def authors_pair(reference: Reference, path: Path) -> list[Path]:
    path.mkdir()
    for half in ("encoder", "decoder"):
        own = {k.removeprefix(f"{half}."): v for k, v in reference.weights.items() if k.startswith(half)}
        # As these files are: neither zip nor prefix.
        torch.save(own, path / f"{half}_epoch_40.pth", _use_new_zipfile_serialization=False)
    return [path / "decoder_epoch_40.pth", path / "encoder_epoch_40.pth"]


@pytest.mark.parametrize(
    "tag",
    [
        "mmseg_r50_150_256x320_s1",
        "mmseg_r101_19_256x512_s2",
        "mmseg_r50_ac_19_257x257_s3",
        "mmseg_r50_21_203x331_s4",
    ],
)
def test_toolbox(fixtures_dir: Path, tmp_path: Path, tag: str) -> None:
    reference = Reference(fixtures_dir, tag)
    parser = upernet.load(toolbox_file(reference, tmp_path / "old.pth"))
    reference.assert_same_segmentation(parser.model)


@pytest.mark.parametrize("tag", ["hf_r50_150_224x288_s5", "hf_convnext_150_224x288_s6", "hf_swin_150_224x288_s7"])
def test_hugging_face(fixtures_dir: Path, tmp_path: Path, tag: str) -> None:
    reference = Reference(fixtures_dir, tag)
    parser = upernet.load(hub_folder(reference, tmp_path / "theirs"))
    reference.assert_same_segmentation(parser.model)


def test_smp(fixtures_dir: Path, tmp_path: Path) -> None:
    reference = Reference(fixtures_dir, "smp_19_256x320_s8")
    torch.save(reference.weights, tmp_path / "theirs.pth")
    reference.assert_same_segmentation(upernet.load(tmp_path / "theirs.pth", reference=True).model)


def test_authors_pixel_model(fixtures_dir: Path, tmp_path: Path) -> None:
    reference = Reference(fixtures_dir, "csail_semseg_150_224x288_s9")
    parser = upernet.load(authors_pair(reference, tmp_path / "ade20k-resnet50-upernet"))
    reference.assert_same_segmentation(parser.model)


def test_authors_multitask_model(fixtures_dir: Path, tmp_path: Path) -> None:
    reference = Reference(fixtures_dir, "csail_unified_150_256x320_s10")
    authors_pair(reference, tmp_path / "upp-resnet50-upernet")
    network = upernet.load(tmp_path / "upp-resnet50-upernet", reference=True).model
    logits = reference.run(network, bgr=True)
    for name in ("scene", "object", "material"):
        reference.assert_close(logits[name].log_softmax(1), f"{name}_logprob")
    for name in ("object", "material"):
        reference.assert_same_classes(logits[name].argmax(1), f"{name}_argmax")
    groups: list[Any] = [logits["part"][:, block] for block in network.tasks["part"].blocks]  # type: ignore[attr-defined]
    reference.assert_close(torch.cat([group.log_softmax(1) for group in groups], dim=1), "part_logprob")
    part = torch.stack([group.argmax(1) for group in groups], dim=1)
    reference.assert_same_classes(part[..., ::2, ::2], "part_argmax")


TABLE = {
    "mmseg_r50_150_256x320_s1": "MMSegmentation, R-50, 256×320",
    "mmseg_r101_19_256x512_s2": "MMSegmentation, R-101, 256×512",
    "mmseg_r50_ac_19_257x257_s3": "MMSegmentation, R-50, align_corners, 257×257",
    "mmseg_r50_21_203x331_s4": "MMSegmentation, R-50, 203×331",
    "hf_r50_150_224x288_s5": "Hugging Face, ResNet-50, 224×288",
    "hf_convnext_150_224x288_s6": "Hugging Face, ConvNeXt-T, 224×288",
    "hf_swin_150_224x288_s7": "Hugging Face, Swin-T, 224×288",
    "smp_19_256x320_s8": "segmentation_models_pytorch, ResNet-50, 256×320",
    "csail_semseg_150_224x288_s9": "authors, pixel code, R-50, 224×288",
    "csail_unified_150_256x320_s10": "authors, multi-task code, R-50, 256×320",
}


def test_the_documented_table_holds_what_is_promised_for_every_fixture() -> None:
    text = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| (.+ \| .+)% \|$", text.partition("<!-- table -->")[2], re.MULTILINE))
    assert rows.keys() == set(TABLE.values())
    for figures in rows.values():
        difference, agreement = map(float, figures.split(" | "))
        assert difference <= 1e-3
        assert agreement >= 99.99


def write_table(folder: Path) -> None:
    """Run all of the above and put what was measured into `docs/convert.md`."""
    import tempfile

    for tag in TABLE:
        test = {"mmseg": test_toolbox, "hf": test_hugging_face}.get(tag.split("_")[0])
        alone = {
            "smp_19_256x320_s8": test_smp,
            "csail_semseg_150_224x288_s9": test_authors_pixel_model,
            "csail_unified_150_256x320_s10": test_authors_multitask_model,
        }
        with tempfile.TemporaryDirectory() as place:
            if test is None:
                alone[tag](folder, Path(place))
            else:
                test(folder, Path(place), tag)
        print(tag, MEASURED[tag], flush=True)
    rows = [
        f"| {name} | {MEASURED[tag][0]:.1e} | {MEASURED[tag][1]:.2%} |"
        for tag, name in TABLE.items()
        if tag in MEASURED
    ]
    path = ROOT / "docs" / "convert.md"
    before, _, rest = path.read_text(encoding="utf-8").partition("<!-- table -->\n")
    after = rest.partition("<!-- end -->")[2]
    lines = ["| network | difference | classes |", "|---|---|---|", *rows]
    path.write_text(f"{before}<!-- table -->\n" + "\n".join(lines) + f"\n<!-- end -->{after}", encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(os.environ.get("UPERNET_FIXTURES", ROOT / "../shared/fixtures")))
