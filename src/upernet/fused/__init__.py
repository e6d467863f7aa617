"""The exact rewritten form of the network: the same answers from fewer multiply-adds, in ordinary tensor operations."""

from upernet.fused.network import FusedUPerNet, fuse

__all__ = ["FusedUPerNet", "fuse"]
