"""JSON files, read with an error that helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsmap_core.errors import DataError


def read_json_object(path: Path, version: int, what: str) -> dict[str, Any]:
    """Read a JSON file that says its version.

    Args:
        path: file.
        version: the one expected.
        what: name of the format, for the error.

    Raises:
        DataError: missing, truncated, no object, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise DataError(f'{path}: no such file; give {what}') from None
    except json.JSONDecodeError as error:
        raise DataError(
            f'{path}: not complete JSON at line {error.lineno}, column {error.colno} '
            f'({error.msg}); expected {what}: write it again'
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read ({error}); expected {what}') from error
    if not isinstance(content, dict):
        raise DataError(f'{path}: holds a {type(content).__name__}; expected {what}')
    found = content.get('version')
    if found != version or isinstance(found, bool):
        raise DataError(f'{path}: version is {found!r}; expected {version} of {what}')
    return content
