# SPDX-License-Identifier: Apache-2.0
"""``python -m guestmem``."""

import sys

from guestmem.cli import main

sys.exit(main())
