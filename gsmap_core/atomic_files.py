"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, keep_mode: bool = False) -> Iterator[Path]:
    """Give an empty file beside a path; it takes the name, replacing an older one, at the end.

    It is on disk before it does. If the block raises, nothing is left behind and an older file
    stays as it was.

    Args:
        path: file to write; its folder is made if needed.
        keep_mode: with the permissions of the older file, which must be there, instead of those
            of a new one.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{target.name}.', suffix='.part', dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result is as readable as any other file the user writes.
        if keep_mode:
            shutil.copymode(target, temporary)
        else:
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
        with temporary.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_text_file(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 file for writing; see `atomic_path`."""
    with atomic_path(path) as temporary, temporary.open('w', encoding='utf-8') as stream:
        yield stream
