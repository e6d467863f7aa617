"""Networks from files of any kind, and files from networks."""
