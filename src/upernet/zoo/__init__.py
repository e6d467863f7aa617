"""Published and shipped models, and the download of weights."""
