"""What a person reads when something is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from upernet.errors import UserError


def told_by(call: Callable[[], Any], kind: type[Exception] = UserError) -> str:
    """The message of the error that a call raises, which is one line."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text
