"""Executing a notebook: a program of its own, which knows nothing of Prefect."""
