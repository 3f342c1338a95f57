"""Writes what is generated from the code: tables of README.md and docs/ros.md, security policy."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ('README.md', 'docs/ros.md')
POLICY = 'config/sros2/gsmap.policy.xml'
#: The cameras that the shipped policy is for.
POLICY_RIG = 'nuscenes_like'
_BLOCK = re.compile(
    r'(<!-- begin (parameters|interface): (\w+) -->\n)(.*?)(<!-- end \2: \3 -->)', re.DOTALL
)


def with_tables(text: str) -> str:
    """Return a page with its tables as they should be."""
    from gsmap_ros.interface import interface_markdown
    from gsmap_ros.parameters import parameters_markdown

    tables = {'parameters': parameters_markdown, 'interface': interface_markdown}
    return _BLOCK.sub(lambda match: f'{match[1]}\n{tables[match[2]](match[3])}\n{match[5]}', text)


def shipped_policy() -> str:
    """Return the security policy as it should be."""
    from gsmap_core.rig import load_rig
    from gsmap_ros.security_policy import policy_xml

    return policy_xml(load_rig(POLICY_RIG).names)


def main() -> None:
    """Rewrite the files that changed."""
    wanted = {name: with_tables((ROOT / name).read_text(encoding='utf-8')) for name in PAGES}
    wanted[POLICY] = shipped_policy()
    for name, new in wanted.items():
        path = ROOT / name
        if not path.exists() or path.read_text(encoding='utf-8') != new:
            path.parent.mkdir(exist_ok=True)
            path.write_text(new, encoding='utf-8')
            print(f'updated {name}')


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
