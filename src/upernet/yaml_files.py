"""Reading and writing YAML in the same way everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from upernet.errors import UserError

_FLOAT = "tag:yaml.org,2002:float"
_WITHOUT_POINT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?[0-9]+\.[0-9]*[eE][0-9]+|[-+]?\.[0-9]+[eE][0-9]+")
_OTHER_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""Errors of Python that PyYAML raises beside its own, such as for a tag `!!bool` before a value that is no boolean."""


class _Loader(yaml.SafeLoader):
    """Reads `1e-3` as a number and a date as a string, as YAML 1.2 does and people expect; PyYAML does neither."""


_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_Loader` would take for numbers, and those whose line breaks PyYAML would lose."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """A string; rare line breaks (U+0085, U+2028, U+2029) are written as escapes, or reading would fold them."""
        style = '"' if any(c in data for c in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, re.compile(rf"(?:{_WITHOUT_POINT.pattern})$"), list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """Read a YAML file as plain values. Nothing in it is executed.

    Raises:
        UserError: If the file cannot be read, or is not valid YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    return yaml_of(text, str(path))


def yaml_of(text: str, where: str) -> Any:
    """Read YAML from a text as plain values. Nothing in it is executed.

    Raises:
        UserError: If it is not valid YAML. The message begins with `where`.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, *_OTHER_ERRORS) as error:
        message = " ".join(str(error).replace(' in "<unicode string>",', "").split())
        raise UserError(f"{where}: not valid YAML ({message})") from error


def parse_yaml(word: str) -> Any:
    """The value of a word of the command line, or the word itself if it is not valid YAML."""
    try:
        return yaml.load(word, _Loader)
    except (yaml.YAMLError, *_OTHER_ERRORS):
        return word


def write_yaml(content: Any) -> str:
    """Write plain values as YAML. Keys stay in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
