"""`python -m deployments` is the same as `penstock`."""

import sys

from deployments.cli import main

sys.exit(main())
