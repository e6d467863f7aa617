"""Broden+: its tables, what becomes of raw labels, and the source that reads a prepared folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from fake_broden import (
    ADE_OBJECTS,
    ADE_PARTS,
    MATERIALS,
    PASCAL_PARTS,
    SCENES,
    SHIFT,
    TEXTURES,
    ade20k_numbers,
    collections,
    opensurfaces_red,
    pascal,
    words,
)
from PIL import Image
from refusals import told_by

from upernet.cli import main
from upernet.data import BrodenPlus
from upernet.data.faults import Kind
from upernet.data.sets.broden_plus import broden_plus
from upernet.data.sets.broden_plus.ade20k import (
    class_of_name,
    decode_classes,
    find_scene,
    official_index,
    official_stem,
)
from upernet.data.sets.broden_plus.pascal import PARTS, part_of_short_name, read_objects, read_parts
from upernet.data.sets.broden_plus.tables import (
    OFFICIAL,
    UNLABELLED_PART,
    assignment,
    channel_of_part,
    class_of_raw_label,
    official_split,
    official_texture_split,
    part_channels,
    part_offsets,
)
from upernet.data.sets.broden_plus.targets import part_map, resize_labels, shrunk_size, to_classes
from upernet.errors import UserError
from upernet.labels import Labels
from upernet.tasks import Object, Part

LISTS = broden_plus()
OBJECT, PART = LISTS["object"].index, LISTS["part_names"].index
X = UNLABELLED_PART


# Tables


def test_counts_and_order() -> None:
    counts = (len(LISTS["object"]), len(LISTS["material"]), len(LISTS["scene"]), len(LISTS["texture"]))
    assert counts == (336, 26, 365, 47)
    assert (LISTS["object"][0], LISTS["material"][0], LISTS["part_names"][0]) == ("-", "-", "-")
    assert (len(LISTS["part"]), len(LISTS["part_names"])) == (77, 153)
    assert max(1 + len(parts) for parts in LISTS["part"].values()) == 24
    assert LISTS["part"]["sky"] == ["cloud"]
    assert set(LISTS["part"]) <= set(LISTS["object"])
    for flat in (LISTS["object"], LISTS["material"], LISTS["scene"], LISTS["texture"], LISTS["part_names"]):
        assert len(Labels.of(flat)) == len(flat)  # refuses repeated names


def test_parts_are_a_task_with_the_channels_of_the_table() -> None:
    task = Part(parts=LISTS["part"])
    task.bind({"object": Object(labels=LISTS["object"])})
    assert len(task.classes) == 427
    assert task.blocks[1] == slice(2, 26)
    assert task.classes.names == part_channels()
    assert [block.start for block in task.blocks] == list(part_offsets().values())


def test_tables_are_those_of_the_specification(spec_dir: Path) -> None:
    spec = json.loads((spec_dir / "broden_plus/labels.json").read_text())
    assert [LISTS["object"], LISTS["part_names"], LISTS["material"], LISTS["scene"], LISTS["texture"]] == [
        spec[key] for key in ("object", "part", "material", "scene", "texture")
    ]
    groups = json.loads((spec_dir / "broden_plus/object_parts.json").read_text())["groups"]
    assert list(LISTS["part"].items()) == [(g["object_name"], g["part_names"][1:]) for g in groups]
    assert list(part_offsets().values()) == [g["channel_offset"] for g in groups]
    for group in groups:
        row = channel_of_part()[group["object_label"]]
        expected = range(group["channel_offset"], group["channel_offset"] + group["channels"])
        assert [row[label] for label in group["part_labels"]] == list(expected)


def test_raw_labels_are_those_of_the_specification(spec_dir: Path) -> None:
    names = {"os": "opensurfaces"}
    with (spec_dir / "broden_plus/label_assignment.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1934
    for row in rows:
        found = assignment(names.get(row["dataset"], row["dataset"]), row["category"])[int(row["raw_label"])]
        assert (found.raw_name, found.label) == (row["raw_name"], int(row["label"]))


def test_splits_are_those_of_the_specification(spec_dir: Path) -> None:
    spec = json.loads((spec_dir / "broden_plus/splits.json").read_text())
    val = set(spec["ade20k_val_files"])
    for index in range(22210):
        assert official_split("ade20k", index) == ("val" if official_stem(index) in val else "train")
    val = set(spec["pascal_val_index"])
    assert [official_split("pascal", i) for i in range(10103)] == ["val" if i in val else "train" for i in range(10103)]
    train, val = set(spec["opensurfaces_train_index"]), set(spec["opensurfaces_val_index"])
    for index in range(25400):
        assert official_split("opensurfaces", index) == ("train" if index in train else "val" if index in val else None)
    val = {f"{texture}/{texture}_{n:04d}.jpg" for texture in LISTS["texture"] for n in range(250)}
    assert {name for name in val if official_texture_split(name) == "val"} == set(spec["dtd_val_files"])
    for name, official in OFFICIAL.items():
        assert official.images == (spec["counts"][name]["train"], spec["counts"][name]["val"])
    with_parts = spec["with_part_file"]
    for name in ("ade20k", "pascal"):
        assert OFFICIAL[name].parts == (with_parts[f"{name}_train"], with_parts[f"{name}_val"])
    assert BrodenPlus.published == {"train": 51384, "val": 5709}


def test_splits_need_no_specification() -> None:
    assert [official_split("ade20k", i) for i in (6, 7, 22209, 22210, -1)] == ["train", "val", "train", None, None]
    assert [official_split("pascal", i) for i in (8, 9, 10102, 10103)] == ["train", "val", "train", None]
    # Rows of photographs without labels are in neither list.
    assert [official_split("opensurfaces", i) for i in (0, 14, 1298, 25337)] == ["train", "val", None, "train"]
    assert official_texture_split("banded/banded_0016.jpg") == "val"
    assert official_texture_split("banded/banded_0002.jpg") == "train"


def test_names_of_ade20k_are_positions() -> None:
    assert [official_index(n) for n in ("ADE_train_00000001", "ADE_train_00020210", "ADE_val_00000001")] == [
        0,
        20209,
        20210,
    ]
    for name in ("ADE_train_00000000", "ADE_train_00020211", "ADE_val_00002001", "ADE_frame_00000001", "x"):
        assert official_index(name) is None
    assert all(official_index(official_stem(i)) == i for i in (0, 20209, 20210, 22209))


# What becomes of raw labels


def test_a_part_map_worked_out_by_hand() -> None:
    objects = np.array(
        [
            [OBJECT("person"), OBJECT("person"), OBJECT("car"), OBJECT("car")],
            [OBJECT("person"), OBJECT("person"), OBJECT("car"), OBJECT("car")],
            [OBJECT("sky"), OBJECT("sky"), OBJECT("wall"), 0],
            [OBJECT("sky"), OBJECT("sky"), OBJECT("wall"), OBJECT("person")],
        ]
    )
    parts = np.array(
        [
            [PART("head"), PART("arm"), PART("head"), 0],
            [0, PART("wheel"), 0, 0],
            [0, 0, PART("wheel"), PART("head")],
            [0, PART("cloud"), 0, PART("leg")],
        ]
    )
    # The group of person starts at channel 26: leg 27, head 28, torso 29, arm 30. A wheel is no part of it. No part of
    # the car is seen (a head is none), so that nothing is known of its parts. A wall has no parts.
    expected = [
        [28, 30, X, X],
        [26, 26, X, X],
        [0, 0, X, X],
        [0, 1, X, 27],
    ]
    found = part_map(objects, parts)
    assert found.tolist() == expected
    assert found.dtype == np.uint16
    names = part_channels()
    assert [names[i] for i in (0, 1, 26, 27, 28, 30)] == [
        "sky/-",
        "sky/cloud",
        "person/-",
        "person/leg",
        "person/head",
        "person/arm",
    ]


def test_an_object_is_learned_once_one_real_part_is_seen() -> None:
    objects = np.full((2, 2), OBJECT("person"))
    parts = np.zeros((2, 2), int)
    assert (part_map(objects, parts) == X).all()
    parts[1, 1] = PART("cloud")
    assert (part_map(objects, parts) == X).all()
    parts[0, 0] = PART("back")
    assert part_map(objects, parts).tolist() == [[40, 26], [26, 26]]
    # A part outside the object's mask does not count.
    objects[0, 0] = OBJECT("wall")
    assert (part_map(objects, parts) == X).all()


def test_raw_labels_merge() -> None:
    raw = np.array([[6, 34, 28, 29], [16, 17, 15, 0]])
    classes = to_classes(raw, "opensurfaces", "material", Path("a.png"))
    names = [LISTS["material"][i] for i in classes.ravel()]
    assert names == ["stone", "stone", "plastic", "plastic", "polished stone", "hair", "-", "-"]
    flags = to_classes(np.array([[954, 956]]), "ade20k", "object", Path("a.png"))
    assert (flags == OBJECT("flag")).all()
    assert LISTS["object"][class_of_raw_label("pascal", "object")[2]] == "airplane"  # aeroplane
    line = "a.png: value 46 is no label; valid: 0 to 45"
    assert told_by(lambda: to_classes(np.array([[46]]), "opensurfaces", "material", Path("a.png"))) == line


def test_colours_of_ade20k_are_numbers() -> None:
    pixels = np.array([[[0, 0, 9], [9, 77, 3], [10, 0, 0], [119, 130, 255]]], np.uint8)
    assert decode_classes(pixels).tolist() == [[0, 77, 256, 11 * 256 + 130]]


def test_names_of_ade20k_are_classes() -> None:
    assert class_of_name("car, auto, automobile, machine, motorcar", "object") == OBJECT("car")
    assert class_of_name("Car; auto; automobile; machine; Motorcar", "object") == OBJECT("car")
    assert class_of_name("bag", "object") == OBJECT("bag")
    assert class_of_name("bag, handbag, pocketbook, purse", "object") == OBJECT("handbag")
    for name in ("bag, sack", "basket, basketball hoop, hoop", "pipe, tube", "file"):  # others begin so too
        assert class_of_name(name, "object") is None
    assert class_of_name("elevator, lift", "object") is None
    assert class_of_name("left arm", "part") == PART("arm")
    assert class_of_name("", "object") is None


def test_scenes_are_found_by_the_names_of_folders() -> None:
    scene = LISTS["scene"].index
    assert find_scene(["a", "airport_terminal"]) == scene("airport_terminal")
    assert find_scene(["transportation", "arrival_gate__indoor"]) == scene("airport_terminal")
    assert find_scene(["a", "arrival_gate", "indoor"]) == scene("airport_terminal")
    assert find_scene(["bakery", "shop"]) == scene("bakery/shop")
    assert find_scene(["abbey"]) == scene("church/outdoor")
    assert find_scene(["unclassified", "misc"]) is None
    with pytest.raises(KeyError, match="a/castle in the air"):
        find_scene(["a", "castle in the air"])


def test_short_names_of_pascal_are_parts() -> None:
    labels = part_of_short_name()
    for shorts in PASCAL_PARTS.values():
        for short, name in shorts.items():
            assert LISTS["part_names"][labels[short]] == name
    assert (labels["backside"], labels["handlebar"]) == (0, PART("handle bar"))
    # Every raw name of the official assignment is reached, but for one that is spelt in two ways.
    assert {a.raw_name for a in assignment("pascal", "part").values()} - set(PARTS) == {"handlebar"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 900), (512, 900)), ((1536, 2048), (512, 683)), ((2048, 1536), (683, 512)), ((513, 513), (512, 512))],
)
def test_the_shorter_side_is_at_most_512(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shrunk_size(size) == expected


def test_labels_are_resized_to_the_nearest() -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4) * 20
    assert resize_labels(values, (2, 2)).tolist() == [[0, 40], [160, 200]]


# Files in their original formats


@pytest.fixture
def samples(data_dir: Path) -> Path:
    folder = data_dir / "samples"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


def test_an_original_label_map_of_2016(samples: Path, tmp_path: Path) -> None:
    (path,) = (samples / "ade20k_2016").rglob("*_seg.png")
    with Image.open(path) as image:
        pixels = np.asarray(image)
    classes = to_classes(decode_classes(pixels), "ade20k", "object", path)
    found = {LISTS["object"][i] for i in np.unique(classes)}
    assert {"ceiling", "wall", "floor", "person", "fountain", "plant", "column", "flowerpot", "ashcan", "-"} <= found


def test_original_images_of_2021(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = samples / "ade20k_full_2021"
    assert main(["prepare", "broden_plus", str(tmp_path), "--ade20k", str(folder), "--workers", "1"]) == 0
    assert "ade20k 2021_17_01: 2 images" in capsys.readouterr().out
    source = BrodenPlus(root=str(tmp_path))
    (item,) = (i for i in source.items("train") if i.id.endswith("16900"))
    assert item.size == (512, 683)
    values = source.read(item)[1]
    labels, parts = source.annotations["object"].labels, source.annotations["part"].labels
    found = {labels[i] for i in np.unique(values["object"]) if i >= 0}
    assert {"building", "car", "van", "person", "road", "sidewalk", "sky", "tree", "truck", "umbrella"} <= found
    assert {parts[i] for i in np.unique(values["part"]) if i >= 0} >= {"car/-", "car/windshield", "car/license plate"}
    assert source.annotations["scene"].labels[values["scene"]] == "street"
    assert np.isin(values["part"][values["object"] == labels.index("car")], range(77, 90)).all()
    report = json.loads((tmp_path / "report.json").read_text())["subsets"]["ade20k"]
    assert "object" not in report["images with names of no class"]


def test_original_annotations_of_pascal_part(samples: Path) -> None:
    folder = samples / "pascal_part"
    for path in sorted((folder / "Annotations_Part").glob("*.mat")):
        with Image.open(folder / "SegmentationClassAug" / f"{path.stem}.png") as image:
            width, height = image.size
        read_parts(path, (height, width))  # every part in it is known
    parts = read_parts(folder / "Annotations_Part/2010_002065.mat", (333, 500))
    expected = {"-", "body", "engine", "wing", "stern", "tail", "wheel"}
    assert {LISTS["part_names"][i] for i in np.unique(parts)} == expected
    boat = read_parts(folder / "Annotations_Part/2010_000145.mat", (375, 500))
    assert not boat.any()


def test_the_authors_tables_are_ours(samples: Path) -> None:
    meta = samples / "unifiedparsing_meta"
    with (meta / "joint_dataset/label_assignment.csv").open() as file:
        for row in csv.DictReader(file):
            subset = {"os": "opensurfaces"}.get(row["dataset"], row["dataset"])
            if row["category"] != "scene":
                table = class_of_raw_label(subset, row["category"]) if row["category"] != "part" else None
                if table is not None:
                    assert table[int(row["raw_label"])] == int(row["broden_label"])
    lines = (meta / "dtd/labels_joint_anno.txt").read_text().splitlines()
    splits = [official_texture_split(line.split()[0]) for line in lines]
    assert (splits.count("train"), splits.count("val")) == OFFICIAL["dtd"].images
    for split, name in (("train", "train"), ("val", "validation")):
        for line in (
            meta / f"dtd/dtd_{name.replace('train', 'training') if split == 'train' else name}_list.head200.json"
        ).open():
            assert splits[json.loads(line)["file_index"]] == split
    for split in ("train", "val"):
        for line in (meta / f"joint_dataset/broden_ade20k_pascal_{split}.head200.json").open():
            record = json.loads(line)
            assert official_split(record["dataset"], record["file_index"]) == split


# Wrong files of Pascal


def test_wrong_files_of_pascal_are_told(tmp_path: Path) -> None:
    from scipy.io import savemat

    pascal(tmp_path, names=["2008_000001"])
    part, context = tmp_path / "part/Annotations_Part/2008_000001.mat", tmp_path / "context/trainval/2008_000001.mat"
    line = f"{part}: 32×24 pixels for an image of 8×8 (2008_000001.jpg)"
    assert told_by(lambda: read_parts(part, (8, 8))) == line
    savemat(context, {"LabelMap": np.zeros((2, 2, 2))})
    line = f"{context}: LabelMap holds float64 of shape (2, 2, 2); expected integers (H, W)"
    assert told_by(lambda: read_objects(context)) == line
    savemat(context, {"Map": np.zeros((2, 2))})
    assert told_by(lambda: read_objects(context)).endswith("expected a MATLAB file with LabelMap")
    savemat(part, {"anno": {"objects": {"parts": {"part_name": "lwheel", "mask": np.ones((2, 2))}}}})
    assert told_by(lambda: read_parts(part, (2, 2))).startswith(f"{part}: Pascal-Part has no part 'lwheel'; valid: for")


# The source


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder; not to be written to."""
    root = tmp_path_factory.mktemp("broden")
    options = collections(root / "owners")
    assert main(["prepare", "broden_plus", str(root / "broden"), *words(options), "--workers", "1"]) == 0
    return root / "broden"


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    import shutil

    return Path(shutil.copytree(prepared, tmp_path / "broden"))


def label_names(source: BrodenPlus, annotation: str, ids: np.ndarray) -> np.ndarray:
    return np.array([*source.annotations[annotation].labels, None], dtype=object)[ids]


def test_what_was_prepared_is_read(prepared: Path) -> None:
    source = BrodenPlus(root=str(prepared), subsets=["ade20k"])
    assert list(source.faults("train")) == list(source.faults("val")) == []
    train, val = source.items("train"), source.items("val")
    assert [i.id for i in val] == ["ade20k/ADE_train_00000008", "ade20k/ADE_val_00000002"]
    assert len(train) == 5
    for item in train + val:
        name = item.id.split("/")[1]
        image, values = source.read(item)
        assert item.size == image.size == image.pixels.shape[:2]  # type: ignore[union-attr]
        scene = values.get("scene")
        assert (None if scene is None else source.annotations["scene"].labels[scene]) == SCENES[name]
        numbers, of_parts = ade20k_numbers(name)
        numbers, of_parts = (resize_labels(n.astype(np.uint16), item.size) for n in (numbers, of_parts))
        objects = label_names(source, "object", values["object"])
        expected = np.vectorize(lambda n: ADE_OBJECTS[n][1] if n else None, otypes=[object])(numbers)
        assert (objects == expected).all()
        if "part" in values:
            given = np.vectorize(lambda n: ADE_PARTS[n][1] if n else None, otypes=[object])(of_parts)
            assert (label_names(source, "part", values["part"]) == parts_by_name(expected, given)).all()
    assert "part" not in next(i for i in train if i.id.endswith("2")).annotations


def parts_by_name(objects: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The part task of an image, object by object, by names."""
    answer = np.full(objects.shape, None, dtype=object)
    for name in set(objects.flat) & LISTS["part"].keys():
        mask, known = objects == name, LISTS["part"][name]
        real = mask & np.isin(parts, known)
        if real.any():
            answer[mask] = f"{name}/-"
            answer[real] = [f"{name}/{part}" for part in parts[real]]
    return answer


def test_materials_and_textures_are_read(prepared: Path) -> None:
    source = BrodenPlus(root=str(prepared), subsets=["opensurfaces"])
    assert list(source.annotations) == ["material"]
    for item in source.items("train") + source.items("val"):
        red = opensurfaces_red(int(item.id.split("/")[1]))
        found = label_names(source, "material", source.read(item)[1]["material"])
        assert (found == np.vectorize(MATERIALS.get, otypes=[object])(red)).all()
    source = BrodenPlus(root=str(prepared), subsets=["dtd"])
    textures = {i.id: i.annotations["texture"] for i in source.items("train") + source.items("val")}
    labels = source.annotations["texture"].labels
    assert {k: labels[v] for k, v in textures.items()} == {f"dtd/{n}/{n}_{i:04d}": n for n, i in TEXTURES}  # type: ignore[index]


def test_subsets_have_their_annotations(prepared: Path) -> None:
    counts = {"object": 335, "part": 427, "scene": 365, "material": 25, "texture": 47}
    source = BrodenPlus(root=str(prepared))
    assert {k: len(v.labels) for k, v in source.annotations.items()} == counts
    assert {k for k, v in source.annotations.items() if v.dense} == {"object", "part", "material"}
    assert (source.annotations["object"].labels[0], source.annotations["part"].labels[:3]) == (
        "wall",
        ("sky/-", "sky/cloud", "building/-"),
    )
    assert list(BrodenPlus(root="", subsets=["pascal"]).annotations) == ["object", "part"]
    assert len(source.items("train")) == 5 + 11 + 15 + 3
    assert len(source.items("val")) == 2 + 1 + 1 + 1


@pytest.mark.parametrize("annotation", ["object", "part", "material"])
def test_predictions_have_the_values_of_the_files(annotation: str, prepared: Path, tmp_path: Path) -> None:
    source = BrodenPlus(root=str(prepared))
    ids = source.prediction_ids(annotation)
    stored = ids.astype(np.uint16)[None]
    Image.fromarray(stored).save(tmp_path / "a.png")
    count = len(source.annotations[annotation].labels)
    assert source.read_mask(tmp_path / "a.png", annotation).tolist() == [[*range(count), -1]]


def changed(folder: Path, number: int, **values: object) -> str:
    """Change a record; its id."""
    table = folder / "records.jsonl"
    records = [json.loads(line) for line in table.read_text().splitlines()]
    records[number] |= values
    table.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(records[number]["id"])


def test_faults_of_a_prepared_folder_are_told(folder: Path) -> None:
    source = BrodenPlus(root=str(folder), subsets=["ade20k"])
    faults = lambda: [(f.kind, str(f)) for f in source.faults("train")]  # noqa: E731
    (folder / "images/ade20k/ADE_train_00000001.jpg").unlink()
    (folder / "object/ade20k/ADE_train_00000002.png").unlink()
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(folder / "part/ade20k/ADE_train_00000004.png")
    path = folder / "object/ade20k/ADE_train_00000004.png"
    with Image.open(path) as image:
        values = np.array(image)
    values[0, 0] = 336
    Image.fromarray(values).save(path)
    changed(folder, 0, scene=365)
    found = faults()
    assert [kind for kind, _ in found] == [Kind.MISSING_IMAGE, Kind.MISSING_MASK, Kind.LABEL, Kind.LABEL, Kind.SIZE]
    assert found[0][1].startswith(
        f"{folder}/images/ade20k/ADE_train_00000001.jpg: no such file; in {folder}, BrodenPlus"
    )
    remedy = f"no such file; run: upernet prepare broden_plus {folder}"
    assert found[1][1] == f"{folder}/object/ade20k/ADE_train_00000002.png: {remedy}"
    assert found[2][1] == f"{folder}/images/ade20k/ADE_train_00000001.jpg: scene 365 is no label; valid: 0 to 364"
    assert found[3][1] == f"{path}: value 335 is no label; valid: 0 to 334, or the ignored value"
    sizes = "mask of 4×3 pixels for an image of 32×24 (ADE_train_00000004.jpg)"
    assert found[4][1] == f"{folder}/part/ade20k/ADE_train_00000004.png: {sizes}"
    assert "no such file" in told_by(lambda: source.items("train"))
    with pytest.raises(UserError, match="value 335 is no label"):
        source.read(next(i for i in BrodenPlus(root=str(folder)).list_split("train").items if i.id.endswith("4")))


def test_subsets_that_are_not_there_are_told(folder: Path) -> None:
    line = f"{folder}: subset 'ade' does not exist; valid: ade20k, pascal, opensurfaces, dtd"
    assert told_by(lambda: BrodenPlus(root=str(folder), subsets=["ade"]).items("train")) == line
    (fault,) = BrodenPlus(root=str(folder), subsets=["ade"]).faults("train")
    assert (fault.kind, str(fault)) == (Kind.LISTING, line)
    table = folder / "records.jsonl"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if '"source": "dtd"' not in line))
    told = told_by(lambda: BrodenPlus(root=str(folder), subsets=["dtd"]).items("train"))
    assert told.startswith(
        f"{folder}: subset 'dtd' is not in it (there are ade20k, pascal, opensurfaces); run: upernet"
    )
    told = told_by(lambda: BrodenPlus(root=str(folder)).items("test"))
    assert told == f"{table}: no images in split 'test'; there are train, val"
    table.unlink()
    told = told_by(lambda: BrodenPlus(root=str(folder)).items("train"))
    assert told.startswith(f"{table}: no such file; BrodenPlus expects records.jsonl, images/")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"scene": "kitchen"}, "scene 'kitchen' of 'ade20k/ADE_train_00000001'"),
        ({"source": "coco"}, "source 'coco' of 'ade20k/ADE_train_00000001'; valid: ade20k, pascal, opensurfaces, dtd"),
        ({"height": True}, "height True of 'ade20k/ADE_train_00000001'"),
    ],
)
def test_records_that_are_none_are_told(values: dict[str, object], problem: str, folder: Path) -> None:
    changed(folder, 0, **values)
    told = told_by(lambda: BrodenPlus(root=str(folder)).items("train"))
    assert told.startswith(f"{folder}/records.jsonl: line 1 is no record ({problem}); run: upernet prepare broden_plus")


def test_numbers_of_the_fakes_of_2021_are_others() -> None:
    """Otherwise the tests of names could pass by number."""
    numbers = class_of_raw_label("ade20k", "object")
    assert all(numbers[n + SHIFT] != numbers[n] or numbers[n] == 0 for n in ADE_OBJECTS)
