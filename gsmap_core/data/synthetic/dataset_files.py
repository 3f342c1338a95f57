"""Files of datasets that appear under their name only when they are complete."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_bytes(content)
    os.replace(partial, path)


def write_table(path: Path, rows: Any) -> None:
    """Write JSON as nuScenes' tables are written."""
    write_atomically(path, json.dumps(rows, indent=0).encode())
