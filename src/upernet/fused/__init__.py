"""The exact rewritten form of the network: the same answers from fewer multiply-adds, in ordinary tensor operations."""
