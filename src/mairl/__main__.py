"""``python -m mairl`` is the command ``mairl``."""

import sys

from mairl.cli import main

sys.exit(main())
