"""Objects as the plain values that YAML holds, and plain values, checked, as objects.

Every class that a file may hold or name goes this way: a model's `config.yaml`, a training file, and what the command
line changes in it.
"""

from upernet.plain.classes import class_paths
from upernet.plain.configurable import Configurable, to_plain
from upernet.plain.merging import merge
from upernet.plain.reading import check_types, from_plain

__all__ = ["Configurable", "check_types", "class_paths", "from_plain", "merge", "to_plain"]
