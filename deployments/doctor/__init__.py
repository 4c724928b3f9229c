"""`penstock doctor`: what of this machine, this checkout and its server is not as it should be."""
