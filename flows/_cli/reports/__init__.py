"""`penstock reports …`: what was told to whom, what waits, what was given up."""
