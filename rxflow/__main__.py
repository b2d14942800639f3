"""`python -m rxflow` is `rxflow`."""

import sys

from rxflow.cli import main

sys.exit(main())
