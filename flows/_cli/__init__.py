"""Commands of `penstock` that work on runs; `deployments/cli.py` names them."""
