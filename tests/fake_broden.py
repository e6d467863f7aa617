"""The collections of Broden+ as their owners distribute them, made up on the spot at thumbnail size.

Every original has the formats and the names of the real one; what it should become is worked out here from names, not
by the package.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fake_data import Size, blocks, picture
from PIL import Image

from upernet.data.sets.broden_plus import broden_plus
from upernet.data.sets.broden_plus.records import Record, as_json_lines
from upernet.data.sets.broden_plus.tables import UNLABELLED_PART, part_offsets

SMALL: Size = (24, 32)

ADE_OBJECTS = {
    2978: ("wall", "wall"),
    2420: ("sky", "sky"),
    1831: ("person, individual, someone, somebody, mortal, soul", "person"),
    401: ("car, auto, automobile, machine, motorcar", "car"),
    853: ("elevator, lift", None),
}
"""Number in the release of 2016 → name in that of 2021, and class of Broden+."""
ADE_PARTS = {1206: ("head", "head"), 54: ("arm", "arm"), 3035: ("wheel", "wheel"), 9: ("zipper", None)}
"""The same for parts."""
SHIFT = 17
"""What these fakes add to a number of 2016, so that nothing is found by number in 2021."""

ADE_2016 = {
    "ADE_train_00000001": "training/a/airport_terminal",
    "ADE_train_00000002": "training/a/airport_terminal",
    "ADE_train_00000003": "training/a/arrival_gate/indoor",
    "ADE_train_00000004": "training/m/misc",
    "ADE_train_00000008": "training/b/bathroom",
    "ADE_val_00000001": "validation/a/abbey",
    "ADE_val_00000002": "validation/a/abbey",
}
"""Image → its folder. Two of them are in the validation split of Broden+."""
ADE_2021 = {
    "ADE_train_00000001": "training/transportation/airport_terminal",
    "ADE_train_00000002": "training/transportation/airport_terminal",
    "ADE_train_00000003": "training/transportation/arrival_gate__indoor",
    "ADE_train_00000004": "training/unclassified/misc",
    "ADE_train_00000008": "training/home_or_hotel/bathroom",
    "ADE_val_00000001": "validation/cultural/abbey",
    "ADE_val_00000002": "validation/cultural/abbey",
    "ADE_frame_00000009": "training/urban/street",
}
"""The same; the last one is new in 2021."""
SCENES = {
    "ADE_train_00000001": "airport_terminal",
    "ADE_train_00000002": "airport_terminal",
    "ADE_train_00000003": "airport_terminal",
    "ADE_train_00000004": None,
    "ADE_train_00000008": "bathroom",
    "ADE_val_00000001": "church/outdoor",
    "ADE_val_00000002": "church/outdoor",
}
"""Image → its scene in Broden+."""
WITHOUT_PARTS = "ADE_train_00000002"
LARGE = "ADE_train_00000003"
"""An image that is shrunk, from 540×720 to 512×683."""
LARGE_SIZE: Size = (540, 720)

PASCAL_OBJECTS = {284: "person", 113: "dog", 440: "wall", 431: None}
"""Label in Pascal-Context → class; 431 is unknown."""
PASCAL_CLASSES = {"person": 15, "dog": 12}
"""Class in Pascal-Part → its number."""
PASCAL_PARTS = {
    "person": {"lfoot": "foot", "ruarm": "arm", "head": "head"},
    "dog": {"rbpa": "paw", "lear": "ear", "muzzle": "muzzle"},
}
"""Class in Pascal-Part → short name of a part → part of Broden+."""
MATERIALS = {1: "brick", 6: "stone", 34: "stone", 28: "plastic", 29: "plastic", 7: None}
"""Red → material."""
TEXTURES = [("banded", 2), ("banded", 16), ("blotchy", 3), ("zigzagged", 64)]


def ade20k(root: Path, release: str = "2016_07_26", *, names: Sequence[str] | None = None, size: Size = SMALL) -> Path:
    """ADE20K's full release of 2016 or 2021, in a folder of its name."""
    is_new = release == "2021_17_01"
    folder = root / f"ADE20K_{release}"
    images = folder / ("images/ADE" if is_new else "images")
    shift = SHIFT if is_new else 0
    for name, place in (ADE_2021 if is_new else ADE_2016).items():
        if names is not None and name not in names:
            continue
        objects, parts = ade20k_numbers(name, size)
        stem = images / place / name
        _save(Path(f"{stem}.jpg"), picture(objects))
        _save(Path(f"{stem}_seg.png"), _coded(objects, shift))
        if name != WITHOUT_PARTS:
            _save(Path(f"{stem}_parts_1.png"), _coded(parts, shift))
            _save(Path(f"{stem}_parts_2.png"), _coded(parts, shift))  # parts of parts, which nobody reads
        if is_new:
            Path(f"{stem}.json").write_text(json.dumps(_annotation(name, place)))
            _save(stem / f"instance_000_{name}.png", _coded(objects, shift))
        else:
            Path(f"{stem}_atr.txt").write_text('001 # 0 # 0 # wall # wall # ""\n')
    return folder


def ade20k_numbers(name: str, size: Size = SMALL) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of 2016 of the objects and parts of an image, (H, W) int64."""
    size = LARGE_SIZE if name == LARGE and size == SMALL else size
    block = 8 if size == SMALL else 60
    objects = blocks(f"objects {name}", [0, *ADE_OBJECTS], size, block)
    parts = blocks(f"parts {name}", [0, 0, *ADE_PARTS], size, block // 2)
    return objects, parts


def _coded(numbers: np.ndarray, shift: int) -> np.ndarray:
    """Numbers as ADE20K colours them: R // 10 · 256 + G. The remainder of R and all of B tell instances apart."""
    numbers = np.where(numbers > 0, numbers + shift, 0)
    return np.stack([numbers // 256 * 10 + numbers % 7, numbers % 256, numbers % 100], -1).astype(np.uint8)


def _annotation(name: str, place: str) -> dict[str, object]:
    found = [
        (number, names[0], level)
        for level, table in enumerate((ADE_OBJECTS, ADE_PARTS))
        for number, names in table.items()
    ]
    things = [
        {
            "id": i,
            "name": given,
            "name_ndx": number + SHIFT,
            "raw_name": given.split(",")[0],
            "parts": {"hasparts": [], "ispartof": [], "part_level": level},
            "polygon": {"x": [0, 1], "y": [0, 1]},
        }
        for i, (number, given, level) in enumerate(found)
    ]
    return {"annotation": {"filename": f"{name}.jpg", "scene": ["outdoor", *place.split("/")[1:]], "object": things}}


PASCAL_NAMES = [f"2008_{number:06d}" for number in range(1, 13)]
"""Twelve images; number 10, the tenth of them, is in the validation split of Broden+."""


def pascal(root: Path, *, names: Sequence[str] = PASCAL_NAMES, size: Size = SMALL, lists: bool = True) -> Path:
    """Pascal-Context in `context`, Pascal-Part in `part`, and the images in `VOC2010`."""
    from scipy.io import savemat

    for place in ("context/trainval", "part/Annotations_Part"):
        (root / place).mkdir(parents=True, exist_ok=True)
    for name in names:
        objects = blocks(f"context {name}", list(PASCAL_OBJECTS), size)
        _save(root / "VOC2010/JPEGImages" / f"{name}.jpg", picture(objects))
        savemat(root / "context/trainval" / f"{name}.mat", {"LabelMap": objects.astype(np.uint16)}, do_compression=True)
        savemat(root / "part/Annotations_Part" / f"{name}.mat", {"anno": pascal_part(name, size)}, do_compression=True)
    if lists:
        listing = root / "VOC2010/ImageSets/Main/trainval.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("".join(f"{name}\n" for name in names))
    from upernet.data.sets.broden_plus.tables import assignment

    labels = {raw: a.raw_name for raw, a in assignment("pascal", "object").items()} | {431: "unknown"}
    (root / "context/labels.txt").write_text("".join(f"{raw}: {name}\n" for raw, name in sorted(labels.items())))
    return root


def pascal_masks(name: str, size: Size = SMALL) -> list[tuple[str, str, np.ndarray]]:
    """The parts drawn in an image: class, short name and mask, in the order in which they are drawn."""
    found = []
    for kind, parts in PASCAL_PARTS.items():
        drawn = blocks(f"{kind} {name}", range(2 + len(parts)), size, 4)
        found += [(kind, short, drawn == i) for i, short in enumerate(parts)]
        found.append((kind, "backside" if kind == "dog" else "mouth", np.zeros(size, bool)))
    return found


def pascal_part(name: str, size: Size = SMALL) -> dict[str, object]:
    """`anno` of Pascal-Part: objects with a class, a mask and parts, and one without parts."""
    part = np.dtype([("part_name", object), ("mask", object)])
    thing = np.dtype([("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    masks = pascal_masks(name, size)
    objects = np.empty((1, len(PASCAL_CLASSES) + 1), thing)
    for i, (kind, number) in enumerate(PASCAL_CLASSES.items()):
        own = [(short, mask.astype(np.uint8)) for of, short, mask in masks if of == kind]
        parts = np.empty((1, len(own)), part)
        for j, values in enumerate(own):
            parts[0, j] = values
        objects[0, i] = (kind, number, np.ones(size, np.uint8), parts)
    objects[0, -1] = ("boat", 4, np.ones(size, np.uint8), np.empty((0, 0), part))
    return {"imname": name, "objects": objects}


OPENSURFACES_ROWS = 16
"""Rows of the table of photographs; row 14 is in the validation split of Broden+."""


def opensurfaces(root: Path, *, rows: int = OPENSURFACES_ROWS, size: Size = SMALL) -> Path:
    """OpenSurfaces as its script unpacks it; the maps are twice as high as the photographs."""
    root.mkdir(parents=True, exist_ok=True)
    numbers = opensurfaces_numbers(rows)
    with (root / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("photo_id", "scene_category_name", "fov", "license_name"))
        writer.writerows((number, "kitchen", 50.5, "CC BY") for number in numbers)
    for number in numbers:
        red = opensurfaces_red(number, size)
        _save(root / "photos" / f"{number}.jpg", picture(red))
        coded = np.stack([red, red + 1, np.full_like(red, 3)], -1).astype(np.uint8)
        _save(root / "photos-labels" / f"{number}.png", np.kron(coded, np.ones((2, 2, 1), np.uint8)))
    from upernet.data.sets.broden_plus.tables import assignment

    names = {raw: a.raw_name for raw, a in assignment("opensurfaces", "material").items()}
    rows_of_names = [f"{raw},{names[raw].replace(';', '/').title()},{raw}\n" for raw in sorted(names)]
    (root / "label-substance-colors.csv").write_text("substance_id,substance_name,red_color\n" + "".join(rows_of_names))
    return root


def opensurfaces_numbers(rows: int = OPENSURFACES_ROWS) -> list[int]:
    """The numbers of the photographs, row by row."""
    return [90000 - 7 * row for row in range(rows)]


def opensurfaces_red(number: int, size: Size = SMALL) -> np.ndarray:
    """The red channel of a map, at the size of its photograph."""
    return blocks(f"os {number}", [0, *MATERIALS], size)


def dtd(root: Path, *, size: Size = SMALL) -> Path:
    """DTD: one folder per texture, and the list of joint annotations."""
    lines = []
    for folder, number in TEXTURES:
        name = f"{folder}/{folder}_{number:04d}.jpg"
        _save(root / "images" / name, picture(blocks(name, [1, 2, 3], size)))
        lines.append(f"{name} {folder} {'striped ' if number == 16 else ''}\n")
    (root / "labels").mkdir(parents=True, exist_ok=True)
    (root / "labels/labels_joint_anno.txt").write_text("".join(lines))
    return root


def collections(root: Path, release: str = "2016_07_26") -> dict[str, Path]:
    """All four, and the options of `upernet prepare broden_plus` that name them."""
    place = pascal(root / "pascal")
    return {
        "ade20k": ade20k(root, release),
        "pascal_context": place / "context",
        "pascal_part": place / "part",
        "opensurfaces": opensurfaces(root / "opensurfaces"),
        "dtd": dtd(root / "dtd"),
    }


def words(options: Mapping[str, Path]) -> list[str]:
    """Options as words of the command line."""
    return [word for name, path in options.items() for word in (f"--{name}", str(path))]


def unified_parsing(root: Path) -> Path:
    """The folder of the authors' code: record lists in `meta_file`, originals in `broden_dataset`."""
    data = root / "broden_dataset"
    ade20k(data / "ade20k")
    pascal(data / "pascal")
    opensurfaces(data / "opensurfaces")
    dtd(data / "dtd" / "dtd-r1.0.1")
    small = {"height": SMALL[0], "width": SMALL[1]}
    large = {"height": LARGE_SIZE[0], "width": LARGE_SIZE[1]}
    lists = {
        "joint_dataset/broden_ade20k_pascal_train.json": [
            *(
                {"dataset": "ade20k", "file_index": i, "nr_part": int(i != 1), **(large if i == 2 else small)}
                for i in range(4)
            ),
            *({"dataset": "pascal", "file_index": i, "nr_part": 1, **small} for i in range(3)),
        ],
        "joint_dataset/broden_ade20k_pascal_val.json": [
            {"dataset": "ade20k", "file_index": 7, "nr_part": 1, **small},
            {"dataset": "pascal", "file_index": 9, "nr_part": 1, **small},
        ],
        "joint_dataset/broden_os_train.json": [{"dataset": "os", "file_index": i, **small} for i in range(5)],
        "joint_dataset/broden_os_val.json": [{"dataset": "os", "file_index": 14, **small}],
        "dtd/dtd_training_list.json": [{"dataset": "dtd", "file_index": i, **small} for i in (0, 2, 3)],
        "dtd/dtd_validation_list.json": [{"dataset": "dtd", "file_index": 1, **small}],
    }
    for name, records in lists.items():
        path = root / "meta_file" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return root


PREPARED = {
    "ade20k": ("object", "part", "scene"),
    "pascal": ("object", "part"),
    "opensurfaces": ("material",),
    "dtd": ("texture",),
}
"""Subset → the annotations of its images in `prepared`."""


def prepared(root: Path) -> Path:
    """A prepared folder: four training and two validation images of each subset, some high and some wide."""
    car = broden_plus()["object"].index("car")
    records = []
    for subset, names in PREPARED.items():
        for split, i in [("train", i) for i in range(4)] + [("val", i) for i in range(2)]:
            id_, size = f"{subset}/{split}_{i}", (72, 40) if i % 3 == 0 else (40, 56)
            things = blocks(id_, [1, 2, car], size)
            parts = part_offsets()["car"] + blocks(f"{id_} parts", [0, 1, 2], size)
            maps = {
                "object": things,
                "part": np.where(things == car, parts, UNLABELLED_PART),
                "material": blocks(f"{id_} material", [0, 1, 4, 25], size),
            }
            for name in names:
                if name in maps:
                    _save(root / name / f"{id_}.png", maps[name].astype(np.uint16))
            _save(root / "images" / f"{id_}.jpg", picture(blocks(id_, range(0, 4000, 100), size)))
            whole = {name: i if name in names else None for name in ("scene", "texture")}
            image = f"images/{id_}.jpg"
            records.append(
                Record(
                    id=id_,
                    source=subset,
                    split=split,
                    index=i,
                    height=size[0],
                    width=size[1],
                    annotations=names,
                    parts="part" in names,
                    image=image,
                    original=image,
                    **whole,
                )
            )
    (root / "records.jsonl").write_bytes(as_json_lines(records))
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}))
