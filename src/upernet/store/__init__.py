"""Any file to a network, and a network to files."""
