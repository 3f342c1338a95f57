"""JSON files: written so that they appear only when complete, read with an error that helps."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from gsmap_core.errors import DataError


@contextmanager
def atomic_text_file(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 file for writing; it takes its name, replacing an older one, at the end.

    If the block raises, nothing is left behind and an older file stays as it was.

    Args:
        path: file to write; its folder is made if needed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f'.{target.name}.', suffix='.part', dir=target.parent
    )
    try:
        with os.fdopen(handle, 'w', encoding='utf-8') as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a result is as readable as any other file the user writes.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
