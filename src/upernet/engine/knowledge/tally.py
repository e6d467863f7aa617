"""Counts over many images, in memory that depends on the number of classes alone, and the knowledge that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from upernet.engine.knowledge.findings import RELATIONS, Concept, Knowledge, Relation, RelationKind
from upernet.engine.knowledge.intervals import bootstrap_intervals, bootstrap_weights, wilson
from upernet.engine.knowledge.observation import Observation, Origin
from upernet.engine.knowledge.thresholds import Thresholds
from upernet.engine.knowledge.vocabulary import Vocabulary, is_scene
from upernet.labels import IGNORE

BLOCK = 64
"""Number of images whose bootstrap weights are in memory at once."""


class Tally:
    """Sums over images. All are whole numbers, so that neither the order of the images nor their chunks matter.

    What is counted (Xiao et al. 2018, section 4.2; SPEC F1):

    - scene-object: images. Those whose scene is known and in which at least one pixel's object is known. An object
      appears from `min_area` on.
    - object-part: images. Of an object, those in which it appears (from `min_area` on) and in which a part, or that it
      is no part, is known on at least one of its pixels. A part appears if its pixels on the object are at least
      `min_part_area` of the image. A part whose name begins with an object's counts for that object alone.
    - object-material, part-material, material-texture: pixels on which both are known, in all images, however few.
    """

    def __init__(self, vocabulary: Vocabulary, thresholds: Thresholds, replicates: int) -> None:
        """Start with no image.

        Args:
            vocabulary: The tasks and their classes.
            thresholds: From what area on objects and parts appear.
            replicates: Number of replicates of the bootstrap.
        """
        self._vocabulary, self._thresholds, self._replicates = vocabulary, thresholds, replicates
        self._images = self._skipped = 0
        self._origins = np.zeros((len(vocabulary.tasks), len(Origin)), np.int64)
        self._class_pixels = {task: np.zeros(len(labels), np.int64) for task, labels in vocabulary.labels.items()}
        self._class_images = {task: np.zeros(len(labels), np.int64) for task, labels in vocabulary.labels.items()}
        self._sums: dict[RelationKind, _ImageSums | _PixelSums] = {}
        for kind in vocabulary.relations:
            sources, targets = (len(vocabulary.labels[task]) for task in (kind.source, kind.target))
            in_pixels = kind.basis == "pixels"
            self._sums[kind] = _PixelSums(sources, targets, replicates) if in_pixels else _ImageSums(sources, targets)

    def add(self, names: Sequence[str], observations: Sequence[Observation]) -> None:
        """Count images.

        Args:
            names: Their names, which differ from one another and from those counted before.
            observations: What they tell; images that could not be read are counted as skipped.
        """
        for start in range(0, len(names), BLOCK):
            part = slice(start, start + BLOCK)
            for seen in observations[part]:
                self._add_one(seen)
            self._add_to_bootstrap(names[part], observations[part])

    def _add_one(self, seen: Observation) -> None:
        if seen.fault:
            self._skipped += 1
            return
        self._images += 1
        self._origins[np.arange(len(seen.origins)), seen.origins] += 1
        appears = self._appear(seen)
        found: dict[str, np.ndarray] = {}
        for number, task in enumerate(self._vocabulary.tasks):
            rows = seen.classes[:, 0] == number
            _, classes, pixels = seen.classes[rows].T
            self._class_pixels[task][classes] += pixels
            found[task] = classes[appears[rows]]
            self._class_images[task][found[task]] += 1
        for number, kind in enumerate(self._vocabulary.relations):
            sums, pairs = self._sums[kind], seen.pairs[seen.pairs[:, 0] == number, 1:]
            if isinstance(sums, _PixelSums):
                sums.add(pairs)
            elif not is_scene(kind):
                self._add_parts(sums, pairs, seen.size, found["object"])
            elif len(found["scene"]) and seen.origins[self._vocabulary.tasks.index(kind.target)] != Origin.NONE:
                sums.add(found["scene"], np.repeat(found["scene"], len(found["object"])), found["object"])
                sums.add_base(found["object"])

    def _appear(self, seen: Observation) -> np.ndarray:
        """(N,) bool: whether each of `seen.classes` covers enough of the image to appear in it."""
        smallest = {"object": self._thresholds.min_area, "part": self._thresholds.min_part_area}
        needed = np.array([smallest.get(task, 0.0) for task in self._vocabulary.tasks])
        return seen.classes[:, 2] / seen.size >= needed[seen.classes[:, 0]]

    def _add_parts(self, sums: _ImageSums, pairs: np.ndarray, size: int, objects: np.ndarray) -> None:
        """Count an image's objects and parts.

        Args:
            sums: Where to.
            pairs: (M, 3): object, part, common pixels, of an image.
            size: Number of its pixels.
            objects: The objects that appear in it.
        """
        if not len(pairs):
            return
        least = self._thresholds.min_part_area
        told, owner = np.isin(pairs[:, 0], objects), self._vocabulary.owners[pairs[:, 1]]
        both = told & (pairs[:, 2] / size >= least) & ((owner == pairs[:, 0]) | (owner == IGNORE))
        sums.add(np.unique(pairs[told, 0]), *pairs[both, :2].T)
        parts, numbers = np.unique(pairs[:, 1], return_inverse=True)
        pixels = np.bincount(numbers, pairs[:, 2])
        sums.add_base(parts[pixels / size >= least])

    def _add_to_bootstrap(self, names: Sequence[str], observations: Sequence[Observation]) -> None:
        counts = [len(seen.pairs) for seen in observations]
        images = np.repeat(np.arange(len(names)), counts)
        pairs = np.concatenate([seen.pairs for seen in observations])
        weights = bootstrap_weights(names, self._replicates)
        for number, kind in enumerate(self._vocabulary.relations):
            sums, own = self._sums[kind], pairs[:, 0] == number
            if isinstance(sums, _PixelSums):
                sums.add_replicates(images[own], pairs[own, 1:], weights)

    # --- the knowledge ------------------------------------------------------------------------------------------------

    def knowledge(self, model: str, settings: Mapping[str, float | int | str | None]) -> Knowledge:
        """What was found out.

        Args:
            model: Name of the model; empty if there is none.
            settings: Options to note down beside the thresholds.
        """
        concepts = self._concepts()
        ids = {(c.task, self._vocabulary.labels[c.task].index(c.name)): c.id for c in concepts}
        relations = [
            relation
            for kind in RELATIONS
            if kind in self._sums
            for relation in sorted(self._relations(kind, ids), key=lambda r: (r.source, -r.share, r.target))
        ]
        origins = zip(self._vocabulary.tasks, self._origins.tolist(), strict=True)
        return Knowledge(
            images=self._images,
            skipped=self._skipped,
            model=model,
            answers={task: {o.name.lower(): row[o] for o in Origin if o != Origin.NONE} for task, row in origins},
            settings=asdict(self._thresholds) | {"replicates": self._replicates} | dict(settings),
            concepts=tuple(concepts),
            relations=tuple(relations),
        )

    def class_ids(self, concepts: Sequence[Concept]) -> dict[int, tuple[str, int]]:
        """Concept id → its task and its class."""
        return {c.id: (c.task, self._vocabulary.labels[c.task].index(c.name)) for c in concepts}

    def _concepts(self) -> list[Concept]:
        concepts: list[Concept] = []
        for task, labels in self._vocabulary.labels.items():
            images, pixels = self._class_images[task], self._class_pixels[task]
            amounts = pixels if self._vocabulary.is_map(task) else images
            for class_id in np.flatnonzero((amounts > 0) & self._vocabulary.concepts[task]).tolist():
                concepts.append(
                    Concept(
                        id=len(concepts),
                        task=task,
                        name=labels.names[class_id],
                        colour=labels.colours[class_id],
                        images=int(images[class_id]),
                        pixels=int(pixels[class_id]),
                        share=float(amounts[class_id] / amounts.sum()),
                    )
                )
        return concepts

    def _relations(self, kind: RelationKind, ids: Mapping[tuple[str, int], int]) -> list[Relation]:
        sums = self._sums[kind]
        counts, totals, base = sums.counts, sums.source_totals, sums.base
        intervals = sums.intervals() if isinstance(sums, _PixelSums) else {}
        relations = []
        for s, t in np.argwhere(counts > 0).tolist():
            if (kind.source, s) not in ids or (kind.target, t) not in ids:
                continue  # "no part" is no concept
            count, total = int(counts[s, t]), int(totals[s])
            low, high = intervals[s, t] if intervals else wilson(count, total)
            in_pixels = kind.basis == "pixels"
            relations.append(
                Relation(
                    kind=kind.name,
                    source=ids[kind.source, s],
                    target=ids[kind.target, t],
                    basis=kind.basis,
                    images=int(sums.images[s, t]),
                    source_images=int(sums.source_images[s]),
                    pixels=count if in_pixels else 0,
                    source_pixels=total if in_pixels else 0,
                    share=count / total,
                    low=low,
                    high=high,
                    lift=(count / total) / float(base[t]),
                )
            )
        return relations


class _ImageSums:
    """Numbers of images of one relation.

    Attributes:
        images: (S, T) int64: images in which both appear.
        source_images: (S,) int64: images in which the source appears and that tell about the target's task.
    """

    def __init__(self, sources: int, targets: int) -> None:
        self.images = np.zeros((sources, targets), np.int64)
        self.source_images = np.zeros(sources, np.int64)
        self._base, self._total = np.zeros(targets, np.int64), 0

    def add(self, given: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> None:
        """Count an image: the sources that it tells about, and pairs that appear. Each of them occurs once."""
        self.source_images[given] += 1
        self.images[sources, targets] += 1

    def add_base(self, targets: np.ndarray) -> None:
        """Count the same image without regard to sources: the targets that appear in it."""
        self._base[targets] += 1
        self._total += 1

    @property
    def counts(self) -> np.ndarray:
        """(S, T) int64: what a share counts."""
        return self.images

    @property
    def source_totals(self) -> np.ndarray:
        """(S,) int64: what it is a share of."""
        return self.source_images

    @property
    def base(self) -> np.ndarray:
        """(T,) float64: the likelihood of each target among all images that tell about both tasks."""
        return self._base / max(self._total, 1)


class _PixelSums:
    """Numbers of pixels of one relation, and the same in every replicate of the bootstrap.

    Attributes:
        counts: (S, T) int64: pixels that have both.
        images: (S, T) int64: images in which there is such a pixel.
        source_images: (S,) int64: images with a pixel of the source of which the target's task tells.
    """

    def __init__(self, sources: int, targets: int, replicates: int) -> None:
        self.counts = np.zeros((sources, targets), np.int64)
        self.images = np.zeros((sources, targets), np.int64)
        self.source_images = np.zeros(sources, np.int64)
        # Few of all pairs ever occur: each gets a row of replicates when it does.
        self._rows = np.full((sources, targets), -1)
        self._used, self._replicates = 0, np.zeros((0, replicates), np.int64)

    def add(self, pairs: np.ndarray) -> None:
        """Count an image: (M, 3) source, target and common pixels, each pair once."""
        sources, targets, pixels = pairs.T
        self.counts[sources, targets] += pixels
        self.images[sources, targets] += 1
        self.source_images[np.unique(sources)] += 1

    def add_replicates(self, images: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> None:
        """Count images in every replicate.

        Args:
            images: (M,) the image of each pair, a row of `weights`.
            pairs: (M, 3) source, target and common pixels.
            weights: (N, R) how often each image is drawn in each replicate.
        """
        if not len(pairs):
            return
        cells, numbers = np.unique(pairs[:, 0] * self.counts.shape[1] + pairs[:, 1], return_inverse=True)
        table = np.zeros((len(cells), len(weights)))
        table[numbers, images] = pairs[:, 2]
        # Whole numbers below 2^53: floating point, which is multiplied faster, is exact in any order.
        drawn = (table @ weights.astype(np.float64)).astype(np.int64)
        rows = self._rows.reshape(-1)
        new = cells[rows[cells] < 0]
        rows[new] = np.arange(self._used, self._used + len(new))
        self._reserve(self._used + len(new))
        self._used += len(new)
        self._replicates[rows[cells]] += drawn

    def _reserve(self, rows: int) -> None:
        if rows > len(self._replicates):
            longer = np.zeros((max(rows, 2 * len(self._replicates), 64), self._replicates.shape[1]), np.int64)
            longer[: self._used] = self._replicates[: self._used]
            self._replicates = longer

    @property
    def source_totals(self) -> np.ndarray:
        """(S,) int64: what a share is a share of, the source's pixels of which the target's task tells."""
        return self.counts.sum(1)

    @property
    def base(self) -> np.ndarray:
        """(T,) float64: the share of each target among all pixels of which both tasks tell."""
        return self.counts.sum(0) / max(int(self.counts.sum()), 1)

    def intervals(self) -> dict[tuple[int, int], tuple[float, float]]:
        """Source and target of every pair that occurs → the ends of the interval of its share."""
        found: dict[tuple[int, int], tuple[float, float]] = {}
        for source in np.flatnonzero(self.counts.any(1)).tolist():
            targets = np.flatnonzero(self.counts[source])
            drawn = self._replicates[self._rows[source, targets]]
            shares = self.counts[source, targets] / self.counts[source].sum()
            low, high = bootstrap_intervals(drawn, drawn.sum(0), shares)
            ends = zip(low.tolist(), high.tolist(), strict=True)
            found |= {(source, target): pair for target, pair in zip(targets.tolist(), ends, strict=True)}
        return found
