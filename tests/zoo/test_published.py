"""The table of published models says what was published."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from upernet.zoo.download import cached_path, published_hash
from upernet.zoo.published import find_published, published

KEYS = {"Cityscapes": "cityscapes", "ADE20K": "ade20k", "Pascal VOC 2012 + Aug": "voc"}


def test_one_row_in_full() -> None:
    model = find_published("upernet_r50_512x1024_40k_cityscapes")
    assert model is not None
    assert (model.dataset, model.classes, model.backbone) == ("cityscapes", "cityscapes", "R-50")
    assert (model.crop, model.steps) == ((512, 1024), 40_000)
    assert (model.miou, model.miou_ms_flip, model.miou_ms) == (77.10, 78.37, None)
    assert (model.memory_gb, model.fps) == (6.4, 4.25)
    folder = "https://download.openmmlab.com/mmsegmentation/v0.5/upernet/upernet_r50_512x1024_40k_cityscapes"
    assert model.addresses == (f"{folder}/upernet_r50_512x1024_40k_cityscapes_20200605_094827-aa54cb54.pth",)
    assert (model.sha256, model.hub, model.loadable, model.reason) == ("aa54cb54", None, True, None)


def test_the_authors_models_are_pairs() -> None:
    pair = find_published("ade20k-resnet50-upernet")
    assert pair is not None
    assert [address.rpartition("/")[2] for address in pair.addresses] == [
        "encoder_epoch_30.pth",
        "decoder_epoch_30.pth",
    ]
    assert (pair.miou, pair.miou_ms, pair.miou_ms_flip) == (40.44, 41.55, None)
    unified = find_published("upp-resnet50-upernet")
    assert unified is not None
    assert (unified.classes, unified.miou, len(unified.addresses)) == ("broden_plus", None, 2)
    folder = "https://dissect.csail.mit.edu/models/segmodel/upp-resnet50-upernet"
    assert unified.copies == (f"{folder}/encoder_epoch_40.pth", f"{folder}/decoder_epoch_40.pth")


def test_rows_are_sound() -> None:
    models = published()
    assert len(models) == 16 + 32 + 3
    assert len({model.name for model in models}) == len(models)
    files = [cached_path(address) for model in models for address in model.addresses]
    assert len(set(files)) == len(files)  # two that share a name would replace one another in the cache
    for model in models:
        assert model.classes in ("ade20k", "cityscapes", "voc", "broden_plus")
        assert model.miou is None or 20 < model.miou < min(model.miou_ms_flip or 99, model.miou_ms or 99)
        assert model.loadable == (model.reason is None)
        names = [address.rpartition("/")[2] for address in model.addresses]
        assert [address.rpartition("/")[2] for address in model.copies] in ([], names)
        if len(model.addresses) == 1:
            file = model.addresses[0].rpartition("/")[2]
            assert model.sha256 == published_hash(file)
            assert model.sha256 is not None
            assert f"/{model.name}/{model.name}" in model.addresses[0]


def test_what_can_be_read() -> None:
    unread = {model.name.replace("_", "-").split("-")[1] for model in published() if not model.loadable}
    assert unread == {"beit", "vit", "deit", "mae", "pcpvt", "svt"}
    hubs = {model.hub.rpartition("/")[2] for model in published() if model.hub}
    assert hubs == {f"upernet-swin-{s}" for s in ("tiny", "small", "base")} | {
        f"upernet-convnext-{s}" for s in ("tiny", "small", "base", "large", "xlarge")
    }


def test_an_unknown_name_is_none() -> None:
    assert find_published("upernet") is None


def test_the_list_is_the_callers_own() -> None:
    published().clear()
    assert published()


def test_no_torch() -> None:
    code = "import sys, upernet.zoo.fetch; from upernet.zoo.published import published; published(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return rows


def test_the_sixteen_rows(spec_dir: Path) -> None:
    rows = read(spec_dir / "seed_results.json")
    assert len(rows) == 16
    by_address = {model.addresses[0]: model for model in published()}
    for row in rows:
        model = by_address[row["checkpoint_url"]]
        assert model.dataset == KEYS[row["dataset"]]
        assert (model.backbone, model.crop) == (row["backbone"], (row["crop_h"], row["crop_w"]))
        assert (model.steps, model.sha256) == (row["iterations"], row["sha256_prefix"])
        assert (model.miou, model.miou_ms_flip) == (row["miou"], row["miou_ms_flip"])
        assert (model.memory_gb, model.fps) == (row["mem_gb"], row["fps"])
        assert row["checkpoint_file"].startswith(f"{model.name}_{row['timestamp']}-")


def test_the_rows_of_other_backbones(spec_dir: Path) -> None:
    rows = read(spec_dir / "reference_rows.json")
    assert len(rows) == 32
    by_file = {model.addresses[0].rpartition("/")[2]: model for model in published()}
    for row in rows:
        model = by_file[row["checkpoint_file"]]
        assert (model.dataset, model.crop) == ("ade20k", tuple(row["crop"]))
        assert (model.miou, model.miou_ms_flip, model.memory_gb) == (row["miou"], row["miou_ms_flip"], row["mem_gb"])
        assert model.loadable == (row["family"] in ("swin", "convnext"))
        assert f"/v0.5/{row['family']}/{model.name}/" in model.addresses[0]
        # The published row says 160k where the released configuration inherits 80k.
        published_steps = {"upernet_deit-s16_512x512_160k_ade20k": 160_000}
        assert model.steps == published_steps.get(model.name, row["iterations"] // row["accumulate"])


def test_the_authors_figures(spec_dir: Path) -> None:
    rows = json.loads((spec_dir / "paper_results.json").read_text())["released_ade20k_pixel_models"]
    for name, released in (("ade20k-resnet50-upernet", "UperNet50"), ("ade20k-resnet101-upernet", "UperNet101")):
        single, several = sorted((r for r in rows if r["model"] == released), key=lambda r: bool(r["multi_scale"]))
        model = find_published(name)
        assert model is not None
        assert (model.miou, model.miou_ms, model.fps) == (single["miou"], several["miou"], single["fps"])
