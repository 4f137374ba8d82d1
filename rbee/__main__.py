"""Run rbee with `python -m rbee`."""

import sys

from rbee.entry import main

sys.exit(main())
