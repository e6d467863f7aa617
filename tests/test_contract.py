"""What every task promises to the rest of the program; a stranger's, defined here, included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
import yaml
from fake_data import own_labels
from torch import Tensor, nn

import upernet.tasks
from upernet.contract import Choice, order_decides
from upernet.errors import UserError
from upernet.labels import IGNORE, ClassSets, Labels
from upernet.plain import from_plain, to_plain
from upernet.tasks import LEVELS, Material, Object, Part, Scene, Semantic, Task, Texture
from upernet.tasks.metrics import TopOne

LABELS = ["sky", "car", "house", "tree"]


@dataclass(kw_only=True)
class Season(Task):
    """A stranger's task: one answer per image from the brightness of each quarter, on nothing but the contract."""

    maps: ClassVar[bool] = False

    level: str = "c5"
    names: list[str] = field(default_factory=lambda: ["spring", "summer", "autumn", "winter"])
    smoothing: float = 0.1

    @property
    def classes(self) -> Labels:
        return Labels.of(self.names)

    def build_head(self, in_channels: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * in_channels, len(self.names)))

    def loss(self, logits: Tensor, target: Tensor, sets: ClassSets) -> Tensor:
        groups = sets.to_groups(target)
        seen = groups != IGNORE
        log_p = sets.log_probabilities(logits.float().log_softmax(1))[seen]
        right = (1 - self.smoothing) * F.nll_loss(log_p, groups[seen], reduction="sum")
        return (right - self.smoothing * log_p.mean(1).sum()) / seen.sum().clamp(min=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.float().softmax(1)

    def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
        return probabilities.argmax(1)

    def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
        return sets.probabilities(probabilities).argmax(1)

    def metric(self, sets: ClassSets, dense: bool, average: Sequence[int] | None = None) -> Any:
        return TopOne(sets.group_names)


TASKS: dict[str, Callable[[], Task]] = {
    "scene": lambda: Scene(labels=LABELS, width=8),
    "object": lambda: Object(labels=LABELS, width=8),
    "part": lambda: Part(parts={"car": ["wheel", "door"], "house": ["door"]}, width=8),
    "material": lambda: Material(labels=LABELS, width=8),
    "texture": lambda: Texture(labels=LABELS, width=8, convs=2),
    "semantic": lambda: Semantic(labels=LABELS),
    "season": Season,
}


@pytest.fixture(params=TASKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def task(name: str) -> Task:
    torch.manual_seed(0)
    task = TASKS[name]()
    task.bind({"object": Object(labels=LABELS), name: task})
    return task


def random_logits(task: Task, batch: int = 2) -> Tensor:
    """What the task's own head says about random features."""
    head = task.build_head(6).train()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    logits: Tensor = head(torch.randn(batch, 6, 5, 7))
    return (logits / logits.std()).detach().requires_grad_()


def random_target(logits: Tensor, labels: int) -> Tensor:
    shape = (logits.shape[0], *logits.shape[2:])
    return torch.randint(IGNORE, labels, shape, generator=torch.Generator().manual_seed(1))


def objects_for(task: Task, logits: Tensor) -> dict[str, Tensor]:
    """Decoded answers of the tasks this one needs."""
    return {need: random_target(logits, len(LABELS)).clamp(min=0) for need in task.needs}


def test_says_what_it_is(task: Task) -> None:
    assert task.level in LEVELS
    assert (task.target, task.auxiliary, task.weight) == (None, False, 1.0)
    assert len(task.classes) == len(set(task.classes.names)) == len(task.classes.colours) > 1


def test_comes_back_from_yaml(task: Task) -> None:
    plain = yaml.safe_load(yaml.safe_dump(to_plain(task)))
    again = from_plain(Task, plain, "here")  # type: ignore[type-abstract]
    assert again == task
    assert type(again) is type(task)
    assert again.classes == task.classes


def test_head_answers_every_class_at_any_size(task: Task) -> None:
    head = task.build_head(6).eval()
    for height, width in ((5, 7), (2, 3), (8, 8)):
        logits = head(torch.randn(2, 6, height, width))
        assert logits.shape == ((2, len(task.classes), height, width) if task.maps else (2, len(task.classes)))


def test_loss_is_a_positive_number_with_finite_gradients(task: Task) -> None:
    sets, logits = own_labels(task), random_logits(task)
    loss = task.loss(logits, random_target(logits, len(task.classes)), sets)
    loss.backward()
    assert loss.shape == ()
    assert loss.item() > 0
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_following_the_gradient_lowers_the_loss(task: Task) -> None:
    sets, logits = own_labels(task), random_logits(task)
    target = random_target(logits, len(task.classes))
    (slope,) = torch.autograd.grad(before := task.loss(logits, target, sets), logits)
    assert task.loss(logits - 0.1 * slope, target, sets) < before


def test_without_labels_the_loss_is_0_and_so_is_its_gradient(task: Task) -> None:
    """Trap: cross-entropy over ignored pixels alone is NaN."""
    sets, logits = own_labels(task), random_logits(task)
    loss = task.loss(logits, torch.full_like(random_target(logits, 2), IGNORE), sets)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_unlabelled_places_have_no_say(task: Task) -> None:
    sets, logits = own_labels(task), random_logits(task, batch=4)
    target = random_target(logits, len(task.classes))
    target[0] = IGNORE
    task.loss(logits, target, sets).backward()
    assert logits.grad is not None
    assert logits.grad.movedim(1, -1)[target == IGNORE].abs().sum() == 0
    assert (logits.grad.movedim(1, -1)[target != IGNORE].abs().sum(-1) > 0).all()


def test_half_precision_logits_lose_nothing_in_the_softmax(task: Task) -> None:
    sets, logits = own_labels(task), random_logits(task).detach().bfloat16()
    target = random_target(logits, len(task.classes))
    assert task.probabilities(logits).dtype == torch.float32
    assert torch.equal(task.probabilities(logits), task.probabilities(logits.float()))
    assert torch.equal(task.loss(logits, target, sets), task.loss(logits.float(), target, sets))


def test_probabilities(task: Task) -> None:
    logits = random_logits(task)
    p = task.probabilities(logits)
    assert p.shape == logits.shape
    assert p.min() >= 0
    softmaxes = len(task.parts) if isinstance(task, Part) else 1
    torch.testing.assert_close(p.sum(1), torch.full_like(p[:, 0], softmaxes))


def test_decode_gives_class_ids(task: Task) -> None:
    logits = random_logits(task)
    ids = task.decode(task.probabilities(logits), objects_for(task, logits))
    assert ids.dtype == torch.int64
    assert ids.shape == (logits.shape[0], *logits.shape[2:])
    assert set(ids.unique().tolist()) <= {IGNORE, *range(len(task.classes))}


def test_one_answer_per_image(task: Task) -> None:
    p = task.probabilities(random_logits(task))
    answer = task.image_probabilities(p)
    assert answer.shape == (2, len(task.classes))
    assert answer.min() >= 0


def test_with_the_classes_for_labels_groups_are_classes(task: Task) -> None:
    logits = random_logits(task)
    p, decoded = task.probabilities(logits), objects_for(task, logits)
    groups = task.predict_groups(p, own_labels(task), decoded)
    assert torch.equal(groups, task.decode(p, decoded))


def test_metric_of_a_perfect_answer_is_1(task: Task) -> None:
    sets, logits = own_labels(task), random_logits(task)
    truth = random_target(logits, len(task.classes)).clamp(min=0)
    metric = task.metric(sets, dense=logits.ndim == 4)
    metric.update(truth, truth)
    values = metric.compute()
    assert list(values.values()) == [1.0] * len(values)
    assert set(metric.per_class()) <= set(sets.group_names)
    again = task.metric(sets, dense=logits.ndim == 4)
    again.update((truth + 1) % len(task.classes), truth)
    assert next(iter(again.compute().values())) < 1


# --- measured as the paper does ---------------------------------------------------------------------------------------


def test_a_perfect_answer_is_1_by_the_papers_protocol_too(task: Task) -> None:
    sets, logits = replace(own_labels(task), protocol="paper"), random_logits(task)
    truth = random_target(logits, len(task.classes)).clamp(min=0)
    metric = task.metric(sets, dense=logits.ndim == 4)
    metric.update(truth, truth)
    present = len(truth.unique()) == len(task.classes)
    values = metric.compute()
    assert list(values.values()) == pytest.approx([1.0] * len(values)) if present else min(values.values()) > 0


def test_answers_that_are_no_label_of_the_source_are_mistakes(task: Task) -> None:
    """Of tasks that ask `sets` for the likeliest; a stranger's that looks at its groups alone goes on as before."""
    sets, logits = own_labels(task), random_logits(task)
    p, decoded = task.probabilities(logits), objects_for(task, logits)
    all_answers = task.predict_groups(p, sets, decoded)
    gone = int(all_answers[all_answers != IGNORE][0])
    rest = [label for i, label in enumerate(sets.labels) if i != gone]
    few = replace(ClassSets.of(rest, task.classes), protocol="paper")
    answers = task.predict_groups(p, few, decoded)
    assert set(answers.unique().tolist()) <= {IGNORE, *range(len(rest))}
    if not isinstance(task, Season):
        expected = torch.where(all_answers == gone, IGNORE, all_answers - (all_answers > gone).long())
        assert torch.equal(answers, expected)
        assert (answers == IGNORE).any()
    metric = task.metric(few, dense=logits.ndim == 4)
    metric.update(answers, torch.ones_like(answers))
    assert all(0 <= value <= 1 for value in metric.compute().values())


def test_choices_count_only_where_nothing_below_them_changes_the_answer() -> None:
    """A mixin, a grandchild, and one that answers in a source's labels in its own way but decodes as ever."""

    class Mixin:
        def probabilities(self, logits: Tensor) -> Tensor:
            return logits.sigmoid()

    class Mixed(Mixin, Semantic):
        """It changes its probabilities by a base class."""

    class Decoding(Semantic):
        def decode(self, probabilities: Tensor, decoded: Mapping[str, Tensor]) -> Tensor:
            return probabilities.argmin(1)

    class Grandchild(Decoding):
        """It inherits another decoding."""

    class Choosing(Decoding):
        def choices(self, sets: ClassSets | None = None) -> list[Choice]:
            return [Choice([1], [0])]

    class Grouping(Semantic):
        def predict_groups(self, probabilities: Tensor, sets: ClassSets, decoded: Mapping[str, Tensor]) -> Tensor:
            return probabilities.argmin(1)

    classes = Labels.of(LABELS)
    sets = ClassSets.of(LABELS[::-1], classes)
    for kind in (Semantic, Mixed, Decoding, Grandchild, Choosing, Grouping):
        task = kind(labels=LABELS)
        told = [order_decides(task) is not None, order_decides(task, sets) is not None]
        assert told == [kind in (Semantic, Choosing, Grouping), kind in (Semantic, Decoding, Grandchild, Choosing)]
    assert order_decides(Season()) is None
    assert Semantic(labels=LABELS).choices(sets) == [Choice([3, 2, 1, 0], [0, 1, 2, 3])]
    assert Semantic(labels=LABELS).choices(ClassSets.of(["x"], classes, {"x": LABELS[:2]})) is None
    assert Choice([1, 2, 3], []).channels == slice(1, 4)
    assert Choice([1, 3], []).channels == [1, 3]


# --- the room ---------------------------------------------------------------------------------------------------------


def test_a_class_is_named_by_its_room_and_a_strangers_by_its_module() -> None:
    assert Scene.class_path() == "upernet.tasks.Scene"
    assert Season.class_path() == f"{__name__}.Season"


def test_every_name_of_the_room_can_be_had() -> None:
    for exported in upernet.tasks.__all__:
        assert getattr(upernet.tasks, exported)
    with pytest.raises(AttributeError, match="Depth"):
        _ = upernet.tasks.Depth


def test_the_contract_itself_imports_no_torch() -> None:
    code = "import sys; from upernet.tasks import Task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_task_without_classes_is_told() -> None:
    with pytest.raises(UserError, match="at least one name"):
        Scene().build_head(4)
