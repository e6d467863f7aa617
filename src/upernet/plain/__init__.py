"""Conversion of objects to the plain values that YAML holds, and of plain values, once checked, to objects.

The contents of every file are converted here: a model's `config.yaml`, a training file, and the changes that the
command line makes to it.
"""

from upernet.plain.classes import class_paths
from upernet.plain.configurable import Configurable, to_plain
from upernet.plain.merging import merge
from upernet.plain.reading import check_types, from_plain

__all__ = ["Configurable", "check_types", "class_paths", "from_plain", "merge", "to_plain"]
