"""A file is the old one or the new one, with the permissions that any new file has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gsmap_core.atomic_files import atomic_path, atomic_text_file


def test_a_file_appears_whole_and_readable(tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'a.txt'
    with atomic_text_file(path) as file:
        file.write('ä')
        assert not path.exists()
    assert path.read_text(encoding='utf-8') == 'ä'
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert list(path.parent.iterdir()) == [path]


def test_an_error_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / 'a.txt'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt), atomic_text_file(path) as file:
        file.write('new')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_of_the_old_file_can_stay(tmp_path: Path) -> None:
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')
    path.chmod(0o640)
    with atomic_path(path, keep_mode=True) as temporary:
        temporary.write_bytes(b'new')
    assert path.read_bytes() == b'new'
    assert path.stat().st_mode & 0o777 == 0o640
