"""Every block class, imported: what the `prefect.collections` entry point names."""

from blocks import *  # noqa: F403 - importing them is what makes Prefect know them
