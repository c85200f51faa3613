# SPDX-License-Identifier: Apache-2.0
"""``python -m guestmem``."""

import sys

from guestmem.cli.main import main

sys.exit(main())
