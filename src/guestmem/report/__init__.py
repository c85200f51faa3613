# SPDX-License-Identifier: Apache-2.0
"""What the commands find, as values: ``repr`` is one line, ``str`` what the command prints.  Below ``cli``, which prints it."""
