"""`python -m vivit`: the same as the command `vivit`."""

import sys

from vivit.cli import main

sys.exit(main())
