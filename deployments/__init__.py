"""Ways in and out: the `penstock` command, the local installation, the listener."""
