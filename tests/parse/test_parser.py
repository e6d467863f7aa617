"""From any picture to a prediction: inputs, sizes, exact tiles, decoding order, shares, and what is saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import upernet.inference.answers
import upernet.inference.views
import upernet.parse.parser
from upernet.config import InferenceConfig
from upernet.data.masks import read_mask
from upernet.device import find_device
from upernet.errors import UserError
from upernet.files import write_whole
from upernet.inference.upsample import upsample_rows
from upernet.labels import IGNORE, Labels
from upernet.parse.parser import Parser
from upernet.parse.prediction import Prediction, label_image
from upernet.tasks import Object, Part, Scene, Semantic

torch.set_num_threads(1)


class Stub(nn.Module):
    """Answers with known logits, whatever the image, and remembers the image."""

    def __init__(self, logits: dict[str, torch.Tensor], align_corners: bool = False) -> None:
        super().__init__()
        self.logits = logits
        self.upsampling_align_corners = align_corners

    def forward(self, image: torch.Tensor, tasks: Sequence[str]) -> dict[str, torch.Tensor]:
        self.seen, self.asked = image, list(tasks)
        return self.logits


def make(logits, tasks, **inference) -> Parser:
    return Parser(Stub(logits), tasks, InferenceConfig(**inference), "stub")


@pytest.fixture
def street() -> Parser:
    """Left half house, right half car; the car's upper half is window, its lower half no part."""
    tasks = {
        "scene": Scene(labels=["beach", "street"]),
        "part": Part(parts={"car": ["window"]}),
        "object": Object(labels=["tree", "house", "car"]),
    }
    tasks["part"].bind(tasks)
    objects = torch.zeros(1, 3, 2, 2)
    objects[0, 1, :, 0] = objects[0, 2, :, 1] = 9
    parts = torch.zeros(1, 2, 2, 2)
    parts[0, 1, 0] = parts[0, 0, 1] = 9
    return make({"scene": torch.tensor([[0.0, 3.0]]), "part": parts, "object": objects}, tasks)


def test_a_known_street(street):
    prediction = street(np.zeros((4, 8, 3), np.uint8))
    assert prediction["scene"] == "street"
    assert prediction["object"].dtype == np.int32
    assert prediction["object"].tolist() == [[1] * 4 + [2] * 4] * 4
    assert prediction["part"].tolist() == [[IGNORE] * 4 + [1] * 4] * 2 + [[IGNORE] * 4 + [0] * 4] * 2
    assert prediction.shares == {
        "part": [("car/-", 0.25), ("car/window", 0.25)],
        "object": [("house", 0.5), ("car", 0.5)],
    }
    name, probability = prediction.top["scene"][0]
    assert (name, probability) == ("street", pytest.approx(1 / (1 + np.exp(-3))))
    assert [name for name, _ in prediction.top["object"]] == ["house", "car", "tree"]
    assert list(prediction) == ["scene", "part", "object"]
    assert prediction.summary() == "scene street 95 %; part car/- 25 %, car/window 25 %"
    assert repr(prediction) == f"Prediction('image', 8×4; {prediction.summary()})"
    with pytest.raises(UserError, match=r"no task 'objct' .*scene, part, object"):
        prediction["objct"]


def test_top_and_scores(street):
    prediction = street(np.zeros((4, 8, 3), np.uint8), scores=True, top=1)
    assert [len(ranking) for ranking in prediction.top.values()] == [1, 1, 1]
    assert prediction.scores["scene"].shape == (2,) and prediction.scores["scene"].dtype == np.float32
    assert prediction.scores["object"].shape == (3, 4, 8) and prediction.scores["object"].dtype == np.float16
    np.testing.assert_allclose(prediction.scores["object"].astype(float).sum(0), 1, atol=2e-3)
    np.testing.assert_array_equal(prediction.scores["object"].argmax(0), prediction["object"])
    assert street(np.zeros((4, 8, 3), np.uint8)).scores is None
    with pytest.raises(UserError, match="top 0"):
        street(np.zeros((4, 8, 3), np.uint8), top=0)


def test_auxiliary_tasks_are_not_answered():
    tasks = {"semantic": Semantic(labels=["a", "b"]), "helper": Semantic(labels=["a", "b"], auxiliary=True)}
    parser = make({"semantic": torch.zeros(1, 2, 2, 2)}, tasks)
    assert list(parser(np.zeros((4, 4), np.uint8))) == parser.model.asked == ["semantic"]


def test_an_auxiliary_task_that_another_needs_is_told():
    tasks = {"object": Object(labels=["x"], auxiliary=True), "part": Part(parts={"x": ["y"]})}
    with pytest.raises(UserError, match=r"^task 'part' needs the answers of 'object'; set its auxiliary to false$"):
        make({}, tasks)


def test_tasks_in_a_circle():
    tasks = {"a": Part(parts={"x": ["y"]}, objects="b"), "b": Part(parts={"x": ["y"]}, objects="a")}
    with pytest.raises(UserError, match="circle"):
        make({}, tasks)


@dataclass(kw_only=True)
class Lonely(Semantic):
    """Wants to see a task that may be absent."""

    @property
    def needs(self) -> tuple[str, ...]:
        return ("absent",)

    def decode(self, probabilities, decoded):
        assert "absent" not in decoded
        return super().decode(probabilities, decoded)


def test_an_absent_need_is_the_tasks_own_affair():
    parser = make({"lonely": torch.zeros(1, 2, 2, 2)}, {"lonely": Lonely(labels=["a", "b"])})
    assert parser(np.zeros((4, 4), np.uint8))["lonely"].max() == 0


# --- tiles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align_corners", [False, True])
def test_tiles_do_not_show(monkeypatch, align_corners):
    logits = torch.randn(1, 5, 7, 9, generator=torch.Generator().manual_seed(0))
    parser = Parser(Stub({"semantic": logits}, align_corners), {"semantic": Semantic(labels=list("abcde"))},
                    InferenceConfig(), "stub")  # fmt: skip
    image = np.zeros((61, 83, 3), np.uint8)
    whole = parser(image, scores=True)
    expected = F.interpolate(logits, (61, 83), mode="bilinear", align_corners=align_corners)
    np.testing.assert_array_equal(whole["semantic"], expected.argmax(1)[0].numpy())
    monkeypatch.setattr(upernet.inference.answers, "BAND", 5 * 83 * 3)
    tiled = parser(image, scores=True)
    np.testing.assert_array_equal(tiled["semantic"], whole["semantic"])
    np.testing.assert_array_equal(tiled.scores["semantic"], whole.scores["semantic"])


def test_no_full_size_logits_are_ever_held(monkeypatch):
    sizes = []
    real = upsample_rows

    def spy(*arguments):
        tile = real(*arguments)
        sizes.append(tile.numel())
        return tile

    monkeypatch.setattr(upernet.inference.views, "upsample_rows", spy)
    monkeypatch.setattr(upernet.inference.cells, "upsample_rows", spy)
    tasks = {"semantic": Semantic(labels=[str(i) for i in range(200)])}
    noise = torch.randn(1, 200, 8, 8, generator=torch.Generator().manual_seed(0))
    for logits, scores in ((torch.zeros(1, 200, 8, 8), True), (noise, False)):
        sizes.clear()
        make({"semantic": logits}, tasks)(np.zeros((300, 400), np.uint8), scores=scores)
        assert max(sizes) <= upernet.inference.answers.BAND < sum(sizes) == 200 * 300 * 400
    sizes.clear()
    make({"semantic": torch.zeros(1, 200, 8, 8)}, tasks)(np.zeros((100, 130), np.uint8))
    assert not sizes  # one class everywhere: nothing is upsampled


# --- pictures ------------------------------------------------------------------------------------------------------

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.astype(np.float32) / 255,
        PIXELS / 255,
        PIXELS[:, ::-1][:, ::-1],
        np.asarray(Image.fromarray(PIXELS)),
        Image.fromarray(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).double() / 255,
    ],
    ids=["uint8", "float32", "float64", "strided", "read-only", "pil", "tensor", "float tensor"],
)
def test_the_same_picture_in_every_form(image):
    parser = make({"s": torch.zeros(1, 1)}, {"s": Scene(labels=["a"])})
    prediction = parser(image)
    np.testing.assert_array_equal(prediction.image, PIXELS)
    assert prediction.image.dtype == np.uint8 and prediction.name == ""
    assert parser.model.seen.dtype == torch.float32 and parser.model.seen.shape == (1, 3, 32, 32)
    assert parser.model.seen.min() >= 0 and parser.model.seen.max() <= 1


def test_the_network_sees_rgb_from_0_to_1():
    parser = make({"s": torch.zeros(1, 1)}, {"s": Scene(labels=["a"])})
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    parser(image)
    np.testing.assert_allclose(parser.model.seen[0].permute(1, 2, 0).numpy(), image / 255, atol=1e-6)
    parser(image / 255)
    np.testing.assert_allclose(parser.model.seen[0].permute(1, 2, 0).numpy(), image / 255, atol=1e-6)


def test_a_path_names_the_prediction(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    parser = make({"s": torch.zeros(1, 1)}, {"s": Scene(labels=["a"])})
    assert parser(tmp_path / "a.png").name == parser(str(tmp_path / "a.png")).name == str(tmp_path / "a.png")
    np.testing.assert_array_equal(parser(tmp_path / "a.png").image, PIXELS)
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        parser(tmp_path / "b.png")


def test_several_images_at_once():
    parser = make({"s": torch.zeros(1, 1)}, {"s": Scene(labels=["a"])})
    assert [p.image.shape for p in parser([PIXELS, PIXELS[:1]])] == [(2, 3, 3), (1, 3, 3)]
    assert len(parser(np.stack([PIXELS] * 3))) == 3
    assert len(parser(torch.zeros(2, 3, 4, 4))) == 2
    assert parser([]) == []


# --- batches -------------------------------------------------------------------------------------------------------


class Seeing:
    """No module of PyTorch: a scene, objects and parts from a fixed convolution of what it is shown."""

    upsampling_align_corners = False

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(7, 3, 5, 5, generator=generator)
        self.batches: list[int] = []

    def __call__(self, image: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        self.batches.append(len(image))
        y = F.conv2d(image - 0.5, self.weight, stride=4, padding=2)
        logits = {"scene": y[:, :2].mean((2, 3)), "object": y[:, 2:5], "part": y[:, 5:]}
        return {name: logits[name] for name in tasks}


def seeing(**inference: Any) -> Parser:
    tasks = {
        "part": Part(parts={"car": ["window"]}),
        "scene": Scene(labels=["beach", "street"]),
        "object": Object(labels=["tree", "house", "car"]),
    }
    tasks["part"].bind(tasks)
    return Parser(Seeing(), tasks, InferenceConfig(**inference), "seeing")


def photos(count: int, height: int = 40, width: int = 60) -> list[np.ndarray]:
    return list(np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "inference",
    [
        {},
        {"short_side": 53},
        {"short_side": 53, "window": (48, 48), "stride": (20, 31)},
        {"short_side": 53, "flip": True, "scales": (0.75, 1.0)},
        {"short_side": 53, "window": (40, 48), "stride": (20, 31), "flip": True, "scales": (1.0, 1.25)},
    ],
    ids=str,
)
def test_a_batch_answers_as_each_image_alone(inference):
    parser, images = seeing(**inference), photos(3)
    alone = [parser(image, scores=True) for image in images]
    together = parser(images, scores=True, batch=2)
    assert set(parser.model.batches) == {1, 2}
    for single, one in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.image, single.image)
        assert list(one) == list(single) and list(one.maps) == list(single.maps) == ["part", "object"]
        for task in single:
            np.testing.assert_allclose(one.scores[task], single.scores[task], atol=2e-3)
            assert one.scores[task].dtype == single.scores[task].dtype
            assert dict(one.top[task]) == pytest.approx(dict(single.top[task]), abs=1e-5)
        for task, label_map in single.maps.items():
            assert (one[task] == label_map).mean() > 0.99
            assert sum(share for _, share in one.shares[task]) == pytest.approx((one[task] != IGNORE).mean())
    assert (alone[0]["object"] != alone[1]["object"]).mean() > 0.3
    assert not np.shares_memory(together[0]["object"], together[1]["object"])


def test_neighbours_of_equal_size_and_type_go_together_and_come_back_in_order():
    parser = seeing()
    wide, tall = photos(4, 40, 60), photos(2, 60, 40)
    images = [wide[0], wide[1], wide[2], tall[0], wide[3], wide[3] / 255, tall[1]]
    assert [one.image.shape[:2] for one in parser(images, batch=2)] == [image.shape[:2] for image in images]
    assert parser.model.batches == [2, 1, 1, 1, 1, 1]
    parser.model.batches.clear()
    for image, one in zip(images, parser(images), strict=True):
        np.testing.assert_array_equal(one.image, np.round(image * 255) if image.dtype == float else image)
    assert parser.model.batches == [1] * 7
    parser.model.batches.clear()
    parser(np.stack(wide), batch=3)
    assert parser.model.batches == [3, 1]


def test_a_bad_image_of_a_batch_is_told_as_it_is_alone():
    parser = seeing()
    for batch in (1, 4):
        with pytest.raises(UserError, match=r"array of shape \(5,\)"):
            parser([*photos(2), np.zeros(5, np.uint8), *photos(1)], batch=batch)
    with pytest.raises(UserError, match="batch 0 is not a number of images; valid: 1 or more, such as 8"):
        parser(photos(1), batch=0)


def test_want_of_memory_names_the_size_and_the_batch(tmp_path, monkeypatch):
    parser = seeing()

    def full(*_):
        raise RuntimeError("can't allocate memory: 9 bytes")

    monkeypatch.setattr(upernet.parse.parser, "run_network", full)
    with pytest.raises(UserError) as caught:
        parser(photos(1)[0])
    assert str(caught.value) == "image: 60×40 pixels do not fit into the memory of cpu; try a smaller image"
    Image.fromarray(photos(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(UserError) as caught:
        parser([tmp_path / "a.png"] * 3, batch=8)
    said = "3 images of 60×40 pixels do not fit into the memory of cpu at once; try a smaller batch"
    assert str(caught.value) == f"{tmp_path / 'a.png'}: {said}"


def test_a_network_that_is_no_module_stays_where_it_is(monkeypatch):
    parser = seeing()
    monkeypatch.setattr(upernet.parse.parser, "find_device", torch.device)
    assert parser.to("cpu") is parser.to("auto") is parser
    with pytest.raises(UserError, match="device 'cuda': seeing cannot be moved; valid: auto, cpu"):
        parser.to("cuda")
    assert parser.device.type == "cpu"


def test_the_network_runs_without_gradients_and_in_evaluation_mode(street):
    assert not street.model.training
    street(PIXELS)
    assert street.model.seen.is_inference()


# --- devices and models --------------------------------------------------------------------------------------------


def test_devices(monkeypatch):
    assert find_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="'gpu' is unknown; valid: auto, cpu, cuda"):
        find_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_device("auto").type == "cpu"
    with pytest.raises(UserError, match="'cuda': no such GPU"):
        find_device("cuda")


def test_moving_the_parser(street):
    assert street.to("cpu") is street
    with pytest.raises(UserError):
        street.to("nowhere")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_maps(street):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    cpu = street(image)
    street.model.logits = {name: value.cuda() for name, value in street.model.logits.items()}
    gpu = street.to("cuda")(image)
    np.testing.assert_array_equal(cpu["part"], gpu["part"])


# --- reports -------------------------------------------------------------------------------------------------------


def test_json(street):
    report = street(np.zeros((4, 8, 3), np.uint8)).to_json()
    assert report["image"] == {"file": "", "width": 8, "height": 4} and report["model"] == "stub"
    assert list(report["tasks"]) == ["scene", "part", "object"]
    scene, part = report["tasks"]["scene"], report["tasks"]["part"]
    assert scene["kind"] == "image" and "classes" not in scene
    assert scene["top"][0] == {"id": 1, "name": "street", "colour": scene["top"][0]["colour"], "probability": 0.952574}
    assert part["kind"] == "dense" and part["unanswered"] == 0.5
    assert part["classes"][0] == {"id": 0, "name": "car/-", "colour": "#808080", "share": 0.25}
    json.dumps(report)


def test_saved_files(street, tmp_path):
    prediction = street(np.zeros((40, 80, 3), np.uint8), scores=True)
    written = prediction.save(tmp_path / "new" / "folder", "photo")
    names = {"photo.part.png", "photo.object.png", "photo.parsed.jpg", "photo.json"}
    names |= {f"photo.{task}.npz" for task in ("scene", "part", "object")}
    assert {path.name for path in written} == names == {path.name for path in (tmp_path / "new/folder").iterdir()}
    folder = tmp_path / "new" / "folder"
    np.testing.assert_array_equal(read_mask(folder / "photo.object.png"), prediction["object"])
    stored = read_mask(folder / "photo.part.png")
    np.testing.assert_array_equal(np.where(stored == 255, IGNORE, stored), prediction["part"])
    with Image.open(folder / "photo.object.png") as image:
        assert image.mode == "P" and image.convert("RGB").getpixel((0, 0)) == prediction.labels["object"].colours[1]
    report = json.loads((folder / "photo.json").read_text("utf-8"))
    assert report["tasks"]["part"]["map"] == "photo.part.png" and report["tasks"]["part"]["unanswered_value"] == 255
    with np.load(folder / report["tasks"]["object"]["scores"]) as arrays:
        np.testing.assert_array_equal(arrays["probabilities"], prediction.scores["object"])
        assert arrays["names"].tolist() == ["tree", "house", "car"]
    with Image.open(folder / "photo.parsed.jpg") as image:
        image.load()


@pytest.mark.parametrize(("classes", "mode", "void"), [(255, "P", 255), (256, "I;16", 65535), (336, "I;16", 65535)])
def test_label_image_keeps_every_id(classes, mode, void, tmp_path):
    labels = Labels.of([str(i) for i in range(classes)])
    label_map = np.array([[IGNORE, 0, classes - 1]], np.int32)
    image, number = label_image(label_map, labels)
    assert (image.mode, number) == (mode, void)
    image.save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[void, 0, classes - 1]]
    assert (tmp_path / "a.png").read_bytes()[24] == (8 if void == 255 else 16)  # bit depth in the header


@pytest.mark.parametrize("stem", ["", "..", "a/b"])
def test_a_stem_is_a_file_name(street, tmp_path, stem):
    with pytest.raises(UserError, match="is no file name"):
        street(PIXELS).save(tmp_path, stem)


def test_a_task_cannot_choose_folders(tmp_path):
    parser = make({"../../x": torch.zeros(1, 2, 2, 2)}, {"../../x": Semantic(labels=["a", "b"])})
    assert all(path.parent == tmp_path and path.exists() for path in parser(PIXELS).save(tmp_path, "photo"))


def test_a_file_name_that_is_no_text_stays_valid_json(tmp_path):
    prediction = make({"s": torch.zeros(1, 1)}, {"s": Scene(labels=["été"])})(PIXELS)
    prediction.name = "photo-\udcff.jpg"
    prediction.save(tmp_path, "photo")
    report = json.loads((tmp_path / "photo.json").read_text("utf-8"))
    assert report["image"]["file"] == "photo-\udcff.jpg" and report["tasks"]["s"]["top"][0]["name"] == "été"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file_or_none(tmp_path, interruption):
    def fill(file):
        file.write(b"half")
        raise interruption

    (tmp_path / "old").write_bytes(b"whole")
    for name in ("old", "new"):
        with pytest.raises(interruption):
            write_whole(tmp_path / name, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_bytes() == b"whole"


def test_shown_in_a_notebook(street):
    assert street(np.zeros((40, 80, 3), np.uint8))._repr_png_().startswith(b"\x89PNG")


def test_a_prediction_without_answers_is_possible(tmp_path):
    labels = Labels.of(["a"])
    prediction = Prediction(PIXELS, {"m": np.full((2, 3), IGNORE, np.int32)}, {"m": labels}, {"m": []}, {"m": []})
    assert prediction.to_json()["tasks"]["m"]["unanswered"] == 1
    prediction.save(tmp_path)
    assert (tmp_path / "image.json").exists()
