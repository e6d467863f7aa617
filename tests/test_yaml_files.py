"""YAML: numbers as people write them, and what is written reads as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from upernet.errors import UserError
from upernet.yaml_files import parse_yaml, read_yaml, write_yaml

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8),
              st.from_regex(r"[-+]?[0-9.]{0,3}[eE]?[-+]?[0-9]{0,2}", fullmatch=True)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(PLAIN)
@example({"\x85": "a\u2028b"})
def test_what_is_written_reads_as_it_was(value: Any) -> None:
    assert repr(parse_yaml(write_yaml(value))) == repr(value)
    if not any(c in repr(value) for c in ("e", "E", "\\x85", "\\u2028", "\\u2029")):
        assert write_yaml(value) == yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e3", 1500.0), (".5e1", 5.0), ("1.0e-06", 1e-6), ("1e", "1e"), ("e5", "e5"),
     ("'1e5'", "1e5"), ("1e5x", "1e5x"), ("12", 12), ("2024-01-01", "2024-01-01"),
     ("a: [", "a: ["), ("!!bool x", "!!bool x")],
)  # fmt: skip
def test_numbers_need_no_point(text: str, value: Any) -> None:
    read = parse_yaml(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["a: [", "a: !!bool b", "[" * 5000, "a: !!python/name:os.system"])
def test_what_is_no_yaml_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'a.yaml'}: not valid YAML (")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        read_yaml(tmp_path / "nowhere.yaml")
