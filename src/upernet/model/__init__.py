"""The network and its parts; `UPerNet` puts them together."""

from upernet.model.upernet import UPerNet

__all__ = ["UPerNet"]
