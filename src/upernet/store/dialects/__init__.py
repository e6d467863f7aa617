"""The layouts of other software, one file each."""
