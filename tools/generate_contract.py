# SPDX-License-Identifier: Apache-2.0
"""Put the groups and the deviations of the contract into docs/contract.md: ``python tools/generate_contract.py``."""

from pathlib import Path

from guestmem.contract.document import SECTIONS

DOCUMENT = Path(__file__).parents[1] / "docs" / "contract.md"


def main() -> None:
    """Replace what stands between the marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in SECTIONS.items():
        mark = f"<!-- {name}: python tools/generate_contract.py -->\n"
        before, rest = text.split(mark)
        text = before + mark + section() + rest[rest.index("<!-- end -->") :]
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
