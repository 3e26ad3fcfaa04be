"""``python -m wm_core.cli`` is ``wm``."""

import sys

from wm_core.cli.main import main

sys.exit(main())
