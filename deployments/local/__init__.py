"""The installation on this machine: server, pool, worker and listener of this checkout."""
