"""The two kinds of errors that a user meets, and the check of a number's bounds."""

from __future__ import annotations


class UserError(Exception):
    """Misuse by the caller. The message is one line with the bad value and a valid one."""


class WorkError(UserError):
    """Work that failed although the command was right, such as reading a damaged file. The message is one line."""


def check(name: str, value: float | None, low: float, high: float = float("inf"), example: object = 1) -> None:
    """Refuse a number that is not finite or lies outside [low, high]. None is accepted.

    Args:
        name: Name of the field or option, for the message.
        value: The number.
        low: Smallest valid number.
        high: Largest valid number.
        example: A valid value, for the message.

    Raises:
        UserError: In one line with the name, the value and a valid one.
    """
    if value is None:
        return
    finite = abs(value) < float("inf")
    if not (finite and low <= value <= high):
        bounds = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise UserError(f"{name}: {value} is not {bounds if finite else 'finite'}; for example {example}")
