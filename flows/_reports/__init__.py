"""Reports: every change of state, told to the endpoints that want to hear it."""
