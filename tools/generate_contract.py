# SPDX-License-Identifier: Apache-2.0
"""Put what is made from data into docs/contract.md and docs/reports/: ``python tools/generate_contract.py``."""

from pathlib import Path

from guestmem.contract.document import SECTIONS, reports

DOCUMENT = Path(__file__).parents[1] / "docs" / "contract.md"


def main() -> None:
    """Replace what stands between the marks, and the reports."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in SECTIONS.items():
        mark = f"<!-- {name}: python tools/generate_contract.py -->\n"
        before, rest = text.split(mark)
        text = before + mark + section() + rest[rest.index("<!-- end -->") :]
    DOCUMENT.write_text(text, encoding="utf-8")
    for name, report in reports().items():
        (DOCUMENT.parent / "reports" / name).write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
