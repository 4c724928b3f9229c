"""The kernel: what a task starts is written down, watched, stopped and found again."""
