"""Training and measuring: loop, schedules, evaluation, logs, processes."""
