"""Writes the parameter tables into README.md and docs/ros.md, from the records of the nodes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ('README.md', 'docs/ros.md')
_BLOCK = re.compile(
    r'(<!-- begin parameters: (\w+) -->\n)(.*?)(<!-- end parameters: \2 -->)', re.DOTALL
)


def with_tables(text: str) -> str:
    """Return a page with its parameter tables as they should be."""
    from gsmap_ros.parameters import parameters_markdown

    return _BLOCK.sub(
        lambda match: match[1] + '\n' + parameters_markdown(match[2]) + '\n' + match[4], text
    )


def main() -> None:
    """Rewrite the pages that changed."""
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding='utf-8')
        new = with_tables(text)
        if new != text:
            path.write_text(new, encoding='utf-8')
            print(f'updated {name}')


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
