"""YAML read and written in one way everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from upernet.errors import UserError

_FLOAT = "tag:yaml.org,2002:float"
_WITHOUT_POINT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?[0-9]+\.[0-9]*[eE][0-9]+|[-+]?\.[0-9]+[eE][0-9]+")
_OTHER_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What PyYAML raises beside its own errors, such as at a tag `!!bool` before what is none."""


class _Loader(yaml.SafeLoader):
    """Takes `1e-3` for a number, as YAML 1.2 does and people expect; PyYAML takes it for a string."""


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
    """The content of a YAML file: plain values; nothing in it is run.

    Raises:
        UserError: If it cannot be read, or is no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (yaml.YAMLError, *_OTHER_ERRORS) as error:
        said = " ".join(str(error).replace(' in "<unicode string>",', "").split())
        raise UserError(f"{path}: no YAML ({said})") from error


def parse_yaml(word: str) -> Any:
    """The value of a word on the command line, or the word itself where it is no YAML."""
    try:
        return yaml.load(word, _Loader)
    except (yaml.YAMLError, *_OTHER_ERRORS):
        return word


def write_yaml(content: Any) -> str:
    """Plain values as YAML, keys in their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
