"""Stand-ins for outside systems: they speak the real protocol, and show what came to them."""
