"""The command `labels`. It opens no image; heavy imports wait until it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from upernet.contract import Task
from upernet.data.config import DataConfig
from upernet.errors import UserError
from upernet.screen import print_line

if TYPE_CHECKING:
    from upernet.data.config import SourceConfig, TargetConfig
    from upernet.data.matching import Proposal


def labels(
    inputs: list[str] = [],  # noqa: B006 (never changed; the command line shows it)
    tasks: dict[str, Task] = {},  # noqa: B006
    data: DataConfig = DataConfig(),  # noqa: B008
    classes: str | None = None,
    json: bool = False,
) -> int:
    """Show which classes the labels of every source stand for, and propose classes for those that have none yet.

    Args:
        inputs: In place of a training file, a folder with class names, or the name of a data set.
        tasks: The tasks by name, as in a training file.
        data: Sources and the meaning of their labels, as in a training file; other settings are not used.
        classes: With DATA, the published list of classes to find its labels in, such as broden_plus/object.
        json: Print everything as JSON.

    Returns:
        Exit status: 0, or 1 if a label has no meaning yet or a source cannot be bound.

    Raises:
        UserError: If neither a training file nor DATA is given, or DATA has no names of labels.
    """
    if inputs:
        if len(inputs) > 1 or data.sources or classes is None:
            raise UserError(
                "labels: give one DATA and --classes, for example upernet labels cityscapes --classes mseg, or --config"
            )
        reports, unused = _compare(inputs[0], classes), list[Unused]()
    else:
        if not tasks or not data.sources:
            raise UserError(
                "labels: needs a training file with tasks and data.sources, for example upernet labels --config "
                "mine.yaml, or DATA and a list, for example upernet labels cityscapes --classes mseg"
            )
        reports, unused = _bind(tasks, data)
    if json:
        _print_json(reports, unused)
    else:
        for line in _lines(reports, unused):
            print_line(line, sys.stdout)
    return int(any(report.unmapped or report.fault for report in reports))


@dataclass
class Report:
    """The labels of one target of a source.

    Attributes:
        source: Name of the source.
        target: Name of the target.
        annotation: Name of the source's annotation; None if the same is known of every image.
        meanings: Label → its classes, none for unlabelled; or a proposal for a label without a meaning.
        table: Name of a published table for these labels; empty if there is none.
        fault: Why the target cannot be bound, in one line; empty if it can, or if labels without a meaning are the
            reason.
    """

    source: str
    target: str
    annotation: str | None = None
    meanings: dict[str, list[str] | Proposal] = field(default_factory=dict)
    table: str = ""
    fault: str = ""

    @property
    def mapped(self) -> dict[str, list[str]]:
        """The labels with a meaning."""
        return {label: value for label, value in self.meanings.items() if isinstance(value, list)}

    @property
    def unmapped(self) -> dict[str, Proposal]:
        """The labels without one."""
        return {label: value for label, value in self.meanings.items() if not isinstance(value, list)}


@dataclass
class Unused:
    """Classes that no source labels alone.

    Attributes:
        target: Name of the target.
        never: Classes that no label of any source stands for.
        together: Classes that labels stand for only together with others ("one of these").
    """

    target: str
    never: list[str]
    together: list[str]


def _bind(tasks: Mapping[str, Task], data: DataConfig) -> tuple[list[Report], list[Unused]]:
    """A report for every target of every source, and the classes that no source labels."""
    from upernet.data.mixture import bind_sources

    bind_sources(DataConfig(), tasks)  # raises if two tasks read one target but have different classes
    readers: dict[str, Task] = {}
    for name, task in tasks.items():
        readers.setdefault(task.target or name, task)
    reports = []
    for name, source in data.sources.items():
        for key in source.targets:
            try:
                reports.append(_report(name, key, source, tasks, readers))
            except UserError as error:
                reports.append(Report(name, key, fault=str(error)))
    return reports, [_unused(key, task, reports) for key, task in readers.items()]


def _report(
    name: str, key: str, source: SourceConfig, tasks: Mapping[str, Task], readers: Mapping[str, Task]
) -> Report:
    """Bind a target as training does.

    Raises:
        UserError: If it cannot be bound for another reason than labels without a meaning.
    """
    from upernet.data.mixture import bind_sources

    one = DataConfig(sources={name: replace(source, targets={key: source.targets[key]})})
    try:
        supervision = bind_sources(one, tasks)[name].supervision[key]
    except UserError:
        partial = _partial(source, source.targets[key], readers.get(key))
        if partial is None:
            raise
        return Report(name, key, *partial)
    sets, known = supervision.sets, supervision.sets.classes.names
    meanings = {label: [known[i] for i in ids] for label, ids in zip(sets.labels, sets.members, strict=True)}
    return Report(name, key, supervision.annotation, {**meanings})


def _partial(
    source: SourceConfig, target: TargetConfig, task: Task | None
) -> tuple[str, dict[str, list[str] | Proposal]] | None:
    """The annotation and the meanings of a target some of whose labels have none; None if something else is wrong."""
    from upernet.data.matching import propose
    from upernet.data.mixture import find_annotation, meanings
    from upernet.labels import ClassSets

    if task is None or target.constant:
        return None
    try:
        annotation, labelled = find_annotation(source, target)
        labels = labelled.labels
        table, known = meanings(labels, target), task.classes.names
        unmapped = [label for label in labels if label not in table and label not in known]
        proposals = propose(unmapped, known)
        if len(unmapped) in (0, len(labels)):
            return (annotation, {**proposals}) if unmapped and not table else None
        # A label without a meaning counts as unlabelled here, so that those of the others can be shown.
        members = ClassSets.of(labels, task.classes, {**table, **dict.fromkeys(unmapped)}).members
    except UserError:
        return None
    classes = {label: [known[i] for i in ids] for label, ids in zip(labels, members, strict=True)}
    return annotation, {**classes, **proposals}


def _unused(key: str, task: Task, reports: Sequence[Report]) -> Unused:
    sets = [ids for report in reports if report.target == key for ids in report.mapped.values()]
    alone, named = {ids[0] for ids in sets if len(ids) == 1}, {name for ids in sets for name in ids}
    never = [name for name in task.classes.names if name not in named]
    return Unused(key, never, [name for name in task.classes.names if name in named - alone])


def _compare(place: str, classes: str) -> list[Report]:
    """The labels of a folder or data set beside a published list of classes.

    Raises:
        UserError: If there is no such list, or the folder has no names of labels.
    """
    from upernet.data.label_tables import table_names
    from upernet.data.matching import propose
    from upernet.data.sets import published_classes

    known = published_classes(classes)
    table = f"{classes}/{place}" if f"{classes}/{place}" in table_names() else ""
    reports = []
    for annotation, names in _label_names(place).items():
        proposals = propose([name for name in names if name not in known], [*known])
        meanings = {name: proposals.get(name) or [name] for name in names}
        reports.append(Report(place, classes, annotation, meanings, table))
    return reports


def _label_names(place: str) -> dict[str, tuple[str, ...]]:
    """Annotation → names of its labels, of a folder or a data set."""
    from upernet.data.folder import ClassFolder, ImageMaskFolder
    from upernet.data.sets import SETS

    folder = Path(place).expanduser()
    if folder.is_dir():
        named = any((folder / name).is_file() for name in ("classes.json", "labels.csv"))
        kind = ImageMaskFolder if named else ClassFolder
        try:
            annotations = kind(root=place).annotations
        except UserError as error:
            raise UserError(f"{error}; expected classes.json, labels.csv, or one folder of images per class") from error
    elif place in SETS:
        annotations = SETS[place](root="").annotations
    else:
        raise UserError(f"{place}: no such folder; valid: a folder, or a data set: {', '.join(SETS)}")
    return {name: annotation.labels for name, annotation in annotations.items()}


def _lines(reports: Sequence[Report], unused: Sequence[Unused]) -> Iterator[str]:
    """The lines of the report."""
    from upernet.data.matching import as_yaml

    for report in reports:
        if report.fault:
            yield report.fault
            continue
        known = f"annotation {report.annotation}, {len(report.meanings):,} labels" if report.annotation else "constant"
        yield f"{report.source}, {report.target}: {known}"
        width = max(map(len, report.meanings), default=0)
        for label, value in report.meanings.items():
            if isinstance(value, list):
                yield f"  {label:<{width}}  {' | '.join(value) or 'null'}"
            else:
                yield f"  {label:<{width}}  no meaning yet; proposed: {value} ({value.by})"
        if report.unmapped:
            yield f"  add to its classes: {as_yaml(report.unmapped)}"
        if report.table:
            yield f"  or use the published table: classes: {report.table}"
    for one in unused:
        for names, what in ((one.never, "that no source labels"), (one.together, "that are only labelled with others")):
            if names:
                yield f"{one.target}: {len(names):,} classes {what}: {', '.join(names)}"


def _print_json(reports: Sequence[Report], unused: Sequence[Unused]) -> None:
    import json

    content = {
        "targets": [
            {
                "source": report.source,
                "target": report.target,
                "annotation": report.annotation,
                "labels": report.mapped,
                "unmapped": {label: {"proposed": p.name, "by": p.by.value} for label, p in report.unmapped.items()},
                "table": report.table or None,
                "fault": report.fault or None,
            }
            for report in reports
        ],
        "classes": [{"target": one.target, "never": one.never, "together": one.together} for one in unused],
    }
    print(json.dumps(content, indent=1, ensure_ascii=False))
