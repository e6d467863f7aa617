"""The interface of network dissection, against a slow composition of the network's outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusals import told_by
from test_readme import blocks as blocks_of
from tiny_model import INFERENCE, network, tasks
from torch import Tensor

import upernet
from upernet.parse.parser import Parser
from upernet.parse.segmenter import UnifiedParsingSegmenter, _divided_regions
from upernet.tasks import Material, Object, Part, Task

OBJECTS = ["-", "lamp", "sky", "building", "person", "door"]
PARTS = {"lamp": ["shade"], "sky": ["cloud"], "building": ["window", "door"], "person": ["head", "window"]}
MATERIALS = ["-", "wood", "glass"]
CHANGED: dict[str, Task] = {
    "object": Object(labels=OBJECTS, width=8),
    "part": Part(parts=PARTS, width=8),
    "material": Material(labels=MATERIALS, width=8),
}


def pictures() -> Tensor:
    """(2, 3, 50, 70) in [-1, 1], coarse enough to survive being shrunk."""
    colours = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return colours.repeat_interleave(10, 2).repeat_interleave(10, 3)


def parser_of(**changed: Task) -> Parser:
    """A tiny network with answers of every kind to `pictures`."""
    made = tasks(**(CHANGED | changed))
    for task in made.values():
        task.bind(made)
    model = network(3, **(CHANGED | changed))
    generator = torch.Generator().manual_seed(5)
    for name in ("object", "part", "material"):
        head = model.heads[name].classifier
        with torch.no_grad():  # classes of like strength, so that all occur
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
            head.bias.zero_()
    model.eval()
    features = model(F.adaptive_avg_pool2d((pictures() + 1) / 2, 64), ["object", "part", "material"])
    for name, logits in features.items():
        with torch.no_grad():
            model.heads[name].classifier.bias.copy_(-logits.mean((0, 2, 3)))
            scale = 2 / logits.std()
            model.heads[name].classifier.weight.mul_(scale)
            model.heads[name].classifier.bias.mul_(scale)
    return Parser(model, made, INFERENCE, "tiny")


@pytest.fixture(scope="module")
def parser() -> Parser:
    return parser_of()


@pytest.fixture
def images() -> Tensor:
    return pictures()


NUMBERS = {"-": 0, "lamp": 1, "sky": 2, "building": 3, "person": 4, "door": 5, "wood": 6, "glass": 7}
"""Objects and materials; the parts that are no objects follow."""


def composed(parser: Parser, image: Tensor, sides: list[int], size: tuple[int, int], owners: list[str]) -> np.ndarray:
    """(3, y, x) of one image, pixel by pixel."""
    sums: dict[str, Any] = {"object": 0, "material": 0, **dict.fromkeys(owners, 0)}
    for side in sides:
        shown = F.adaptive_avg_pool2d(((image + 1) / 2)[None], (side, side))
        with torch.no_grad():
            logits = parser.model(shown, ["object", "material", "part"])
        large = {n: F.interpolate(z, size, mode="bilinear", align_corners=False)[0].numpy() for n, z in logits.items()}
        start = 0
        for owner, parts in PARTS.items():
            if owner in owners:
                sums[owner] = sums[owner] + softmax(large["part"][start : start + 1 + len(parts)])
            start += 1 + len(parts)
        for name in ("object", "material"):
            sums[name] = sums[name] + softmax(large[name])
    numbers = dict(NUMBERS)
    for owner in owners:
        for part in PARTS[owner]:
            numbers.setdefault(part, len(numbers))
    out = np.zeros((3, *size), np.int64)
    for y in range(size[0]):
        for x in range(size[1]):
            thing = OBJECTS[sums["object"][:, y, x].argmax()]
            out[0, y, x] = numbers[thing]
            out[1, y, x] = numbers[MATERIALS[sums["material"][:, y, x].argmax()]]
            if thing in owners:
                out[2, y, x] = numbers[["-", *PARTS[thing]][sums[thing][:, y, x].argmax()]]
    return out


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(0))
    return np.asarray(e / e.sum(0))


@pytest.mark.parametrize(("sides", "downsample"), [([64], 1), ([64, 96], 3)])
@pytest.mark.parametrize("all_parts", [False, True])
def test_segments_are_those_of_a_slow_composition(
    parser: Parser, images: Tensor, sides: list[int], downsample: int, all_parts: bool
) -> None:
    found = UnifiedParsingSegmenter(sides, all_parts=all_parts, model=parser).segment_batch(images, downsample)
    size = 50 // downsample, 70 // downsample
    assert (found.shape, found.dtype) == ((2, 3, *size), torch.int64)
    owners = [name for name in PARTS if all_parts or name != "lamp"]
    for image, segments in zip(images, found.numpy(), strict=True):
        expected = composed(parser, image, sides, size, owners)
        assert (segments == expected).mean() > 0.999  # the last bit may decide between equals
    assert all(len(np.unique(found[:, i])) >= count for i, count in enumerate((3, 2, 2)))


def test_a_picture_of_the_right_size_is_shown_as_it_is(parser: Parser) -> None:
    seen = []

    class Watched:
        upsampling_align_corners = False

        def __call__(self, image: Tensor, names: Any) -> Any:
            seen.append(image)
            return parser.model(image, names)

    watching = Parser(Watched(), parser.tasks, INFERENCE, "watched")
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    UnifiedParsingSegmenter([64], model=watching).segment_batch(picture)
    assert torch.equal(seen[0], (picture + 1) / 2)


def test_labels_are_numbered_as_theirs(parser: Parser) -> None:
    """Parts that are objects have the object's number, a part of two objects one number."""
    usual = UnifiedParsingSegmenter(model=parser)
    labels, categories = usual.get_label_and_category_names()
    assert categories == ["object", "part", "material"]
    assert labels == [
        *((name, "object") for name in OBJECTS),
        *((name, "material") for name in MATERIALS[1:]),
        *((name, "part") for name in ("cloud", "window", "head")),
    ]
    assert [index.tolist() for index in usual.part_index] == [[0, 8], [0, 9, 5], [0, 10, 9]]
    assert usual.objects_with_parts == [2, 3, 4]
    assert (usual.num_classes, usual.num_object_classes) == (11, 5)
    every = UnifiedParsingSegmenter(model=parser, all_parts=True)
    assert every.part_names == ["shade", "cloud", "window", "head"]
    assert usual.segsizes == [256]
    assert usual.segdiv == "undivided"


def test_probabilities_are_summed(parser: Parser, images: Tensor) -> None:
    named, parts = UnifiedParsingSegmenter([32, 64], model=parser).raw_seg_prediction(images, 2)
    assert {name: p.shape for name, p in named.items()} == {"object": (2, 6, 25, 35), "material": (2, 3, 25, 35)}
    assert {i: p.shape[1] for i, p in parts.items()} == {0: 2, 1: 3, 2: 3}
    for p in (*named.values(), *parts.values()):
        torch.testing.assert_close(p.sum(1), torch.full((2, 25, 35), 2.0))


def test_each_label_alone(parser: Parser, images: Tensor) -> None:
    """The mask is where `segment_batch` says so, for every label that it gives; the score has a gradient."""
    segmenter = UnifiedParsingSegmenter([64], model=parser, all_parts=True)
    segments = segmenter.segment_batch(images)
    images.requires_grad_()
    for number in range(1, segmenter.num_classes):
        score, mask = segmenter.predict_single_class(images, number)
        assert torch.equal(mask, (segments == number).any(1))
        assert score.shape == mask.shape == (2, 50, 70)
    score.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    line = told_by(lambda: segmenter.predict_single_class(images, 99))
    assert line == "classnum: 99 is no label with a score; valid: a number of an object, material or part"


def test_a_model_without_a_class_for_no_prediction() -> None:
    """Its first object has number 1, and it never gives 0."""
    parser = parser_of(object=Object(labels=["sky", "car"], width=8), part=Part(parts={"sky": ["cloud"]}, width=8))
    segmenter = UnifiedParsingSegmenter([64], model=parser)
    assert segmenter.get_label_and_category_names()[0][:4] == [
        ("-", "object"), ("sky", "object"), ("car", "object"), ("wood", "material"),
    ]  # fmt: skip
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        logits = parser.model((image + 1) / 2, ["object"])["object"]
    larger = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(segmenter.segment_batch(image)[:, 0], larger.argmax(1) + 1)
    assert segmenter.raw_seg_prediction(image)[0]["object"].shape[1] == 3


def test_a_class_for_no_prediction_that_is_not_the_first() -> None:
    parser = parser_of(object=Object(labels=["sky", "-", "car"], width=8), part=Part(parts={"car": ["wheel"]}, width=8))
    segmenter = UnifiedParsingSegmenter([64], model=parser)
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        logits = parser.model((image + 1) / 2, ["object"])["object"]
    larger = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(segmenter.segment_batch(image)[:, 0], torch.tensor([1, 0, 2])[larger.argmax(1)])


def test_halves_by_hand(parser: Parser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lamp of 3×3, touching nothing, and sky below it, which comes last in reading order and stays whole."""
    segmenter = UnifiedParsingSegmenter(segdiv="quad", model=parser)
    objects = torch.tensor([[[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 2]]])
    upright, across = segmenter._halves(objects)
    top, left, bottom, right = (1 + 5 * copy for copy in (1, 2, 3, 4))
    assert upright.tolist() == [[[top] * 3 + [0], [bottom] * 3 + [0], [bottom] * 3 + [0], [0] * 4]]
    assert across.tolist() == [[[left, right, right, 0]] * 3 + [[0] * 4]]
    labels, _ = segmenter.get_label_and_category_names()
    assert [labels[n] for n in (top, left, bottom, right)] == [(f"lamp-{side}", "part") for side in "tlbr"]
    assert labels[26] == ("wood", "material")
    assert segmenter.num_classes == 1 + 5 * 5 + 2 + 3


def test_regions_touch_at_corners_and_are_of_one_object() -> None:
    regions = list(_divided_regions(np.array([[1, 0, 2, 2], [0, 1, 2, 0], [0, 0, 0, 1], [3, 0, 0, 0]])))
    assert [(number, box) for number, box, _ in regions] == [(1, (0, 0, 2, 2)), (2, (0, 2, 2, 4)), (1, (2, 3, 3, 4))]
    assert regions[0][2].tolist() == [[True, False], [False, True]]
    assert list(_divided_regions(np.zeros((2, 2), np.int64))) == []


def test_five_layers_with_halves(parser: Parser, images: Tensor) -> None:
    whole = UnifiedParsingSegmenter([64], model=parser).segment_batch(images, 2)
    divided = UnifiedParsingSegmenter([64], "quad", model=parser).segment_batch(images, 2)
    assert divided.shape == (2, 5, 25, 35)
    assert torch.equal(divided[:, 0], whole[:, 0])
    shift = 4 * 5  # four copies of five objects before the materials and parts
    assert torch.equal(divided[:, 1], torch.where(whole[:, 1] > 0, whole[:, 1] + shift, 0))
    inside = divided[:, 3] > 0
    assert inside.any() and torch.equal(inside, divided[:, 4] > 0)
    assert torch.equal((divided[:, 3] - 1)[inside] % 5 + 1, divided[:, 0][inside])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (
            lambda p: UnifiedParsingSegmenter([16], model=p),
            "segsizes: [16] is not a list of sides of at least 32 pixels",
        ),
        (lambda p: UnifiedParsingSegmenter([], model=p), "segsizes: [] is not a list of sides"),
        (lambda p: UnifiedParsingSegmenter(segdiv="half", model=p), "segdiv: 'half' is not one of undivided, quad"),
        (
            lambda p: UnifiedParsingSegmenter([32], model=p).segment_batch(torch.zeros(3, 32, 32)),
            "tensor_images: (3, 32, 32) torch.float32 is not (n, 3, y, x) of floating point in [-1, 1]",
        ),
        (
            lambda p: UnifiedParsingSegmenter([32], model=p).segment_batch(torch.zeros(1, 3, 32, 32), 64),
            "downsample: 64 leaves no pixel, or is below 1; for example 1",
        ),
    ],
)
def test_wrong_use_is_told(parser: Parser, make: Any, line: str) -> None:
    assert told_by(lambda: make(parser)).startswith(line)


def test_a_model_without_materials_is_told() -> None:
    made = tasks()
    for task in made.values():
        task.bind(made)
    line = told_by(lambda: UnifiedParsingSegmenter(model=Parser(network(), made, INFERENCE, "tiny")))
    assert line == "tiny: has no Material task, which network dissection needs; tasks: scene, object, part"


def test_the_short_path_is_lazy_and_leads_here() -> None:
    assert upernet.UnifiedParsingSegmenter is UnifiedParsingSegmenter


def test_the_documented_example_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    example = next(b for b in blocks_of((root / "docs" / "dissection.md").read_text(), "python") if "upp-mini" in b)
    exec(compile(example, "dissection.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = [line.split("  # ", 1)[1] for line in example.splitlines() if line.startswith("print(")]
    assert printed == promised
