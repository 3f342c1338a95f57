"""Tiles on disk, written so that a process may be killed at any moment.

A folder holds one file per tile and a journal. A commit writes new files for the tiles that
changed, then appends one line to the journal that names them; only that line makes them valid.
Whoever reads goes by the last whole line, so that a commit is there entirely or not at all. Files
that no line names any more are deleted afterwards.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from gsmap_core.errors import DataError
from gsmap_core.mapping.tiles import Tile
from gsmap_core.mapping.track import VERTEX_FIELDS, Track

FORMAT = 'gsmap-tiles-1'
JOURNAL = 'journal.jsonl'
_LOCK = 'lock'
_TILE_NAME = re.compile(r'tile_(-?\d+)_(-?\d+)\.(\d+)\.npz')
#: A journal of more lines is written anew when the store is opened.
_MAX_LINES = 1000
_SCALARS = ('id', 'category', 'closed', 'clipped')


@dataclass(frozen=True)
class StoreState:
    """What the journal says beside the tiles.

    Args:
        revision: number of the commit; 0: none.
        stamp_ns: of the newest frame in the map [ns].
        next_id: identity that the next element gets.
        position: (x, y) of the vehicle in the map frame [m]; None: not known.
    """

    revision: int = 0
    stamp_ns: int = 0
    next_id: int = 1
    position: tuple[float, float] | None = None


class TileStore:
    """The tiles of one map in a folder.

    Args:
        folder: made if needed.
        tile_size_m: side of a tile [m].
        read_only: for a look at a store that another process may be writing.

    Raises:
        DataError: the folder is in use by another process, was written with another tile size, or
            its journal is damaged.
    """

    def __init__(
        self, folder: Path | str, tile_size_m: float = 50.0, *, read_only: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.tile_size_m = tile_size_m
        self.state = StoreState()
        self._files: dict[Tile, str] = {}
        self._read_only = read_only
        self._lock: IO[str] | None = None
        self._journal: IO[bytes] | None = None
        journal = self.folder / JOURNAL
        if read_only:
            if not journal.is_file():
                raise DataError(f"'{self.folder}' holds no map: no {JOURNAL} is there")
            self._read_journal()
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            num_lines, good_bytes = self._read_journal() if journal.is_file() else (0, 0)
            if num_lines == 0 or num_lines > _MAX_LINES:
                self._write_journal()
            else:
                os.truncate(journal, good_bytes)
            self._journal = journal.open('ab')
            self._delete_unnamed()
        except BaseException:
            self.close()
            raise

    @property
    def tiles(self) -> frozenset[Tile]:
        """Tiles that are on disk."""
        return frozenset(self._files)

    def close(self) -> None:
        """Give the folder free."""
        for file in (self._journal, self._lock):
            if file is not None:
                file.close()
        self._journal = self._lock = None

    def read(self, tile: Tile) -> list[Track]:
        """Return the pieces in a tile; none where it is not on disk.

        Raises:
            DataError: the file of the tile is missing or damaged.
        """
        for attempt in range(3):
            name = self._files.get(tile)
            if name is None:
                return []
            try:
                return tracks_from_bytes((self.folder / name).read_bytes())
            except FileNotFoundError:
                # Somebody else writes: the journal has a newer name by now.
                if not self._read_only or attempt == 2:
                    raise DataError(
                        f"'{self.folder / name}' is missing; restore it or reset the map"
                    ) from None
                self._read_journal()
            except (ValueError, KeyError, OSError) as error:
                raise DataError(
                    f"'{self.folder / name}' is damaged ({error!r}); restore it or reset the map"
                ) from None
        return []

    def commit(self, changed: Mapping[Tile, Sequence[Track]], state: StoreState) -> None:
        """Make new contents of tiles, and the state, valid at once.

        Args:
            changed: all pieces of every tile that changed; none: the tile goes.
            state: the revision must be new.
        """
        assert self._journal is not None
        names: dict[Tile, str | None] = {}
        for tile, pieces in changed.items():
            if not pieces:
                names[tile] = None
                continue
            name = f'tile_{tile[0]}_{tile[1]}.{state.revision}.npz'
            with (self.folder / name).open('wb') as file:
                file.write(tracks_to_bytes(pieces))
                file.flush()
                os.fsync(file.fileno())
            names[tile] = name
        if names:
            self._sync_folder()
        self._journal.write(_line(_entry(names, state)))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self.state = state
        for tile, new_name in names.items():
            old = self._files.pop(tile, None)
            if new_name is not None:
                self._files[tile] = new_name
            if old is not None and old != new_name:
                (self.folder / old).unlink(missing_ok=True)

    def clear(self, state: StoreState) -> None:
        """Forget every tile, at once."""
        self.commit({tile: () for tile in self.tiles}, state)

    def _take_lock(self) -> None:
        self._lock = (self.folder / _LOCK).open('a+')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise DataError(
                f"'{self.folder}' is in use by another map builder; end it or choose another "
                'map.directory'
            ) from None

    def _read_journal(self) -> tuple[int, int]:
        """Take over what the journal says; returns its whole lines and their bytes."""
        path = self.folder / JOURNAL
        content = path.read_bytes()
        lines = content.split(b'\n')
        good_bytes = num_lines = 0
        self._files, self.state = {}, StoreState()
        for number, line in enumerate(lines[:-1]):
            entry = _parsed(line)
            if entry is None:
                if any(_parsed(other) is not None for other in lines[number + 1 :]):
                    raise DataError(
                        f"'{path}' is damaged at line {number + 1}; restore it, or delete the "
                        'folder to begin a new map'
                    )
                break
            if number == 0:
                self._check_header(entry, path)
            else:
                self._apply(entry)
            good_bytes += len(line) + 1
            num_lines += 1
        return num_lines, good_bytes

    def _check_header(self, entry: dict[str, Any], path: Path) -> None:
        if entry.get('format') != FORMAT:
            raise DataError(
                f"'{path}' has format {entry.get('format')!r}; expected {FORMAT!r}: give another "
                'folder'
            )
        size_m = float(entry['tile_size_m'])
        if self._read_only:
            self.tile_size_m = size_m
        elif size_m != self.tile_size_m:
            raise DataError(
                f"'{path}' was written with tiles of {size_m:g} m, not {self.tile_size_m:g} m; "
                'set that size or give another folder'
            )

    def _apply(self, entry: dict[str, Any]) -> None:
        for key, name in entry['tiles'].items():
            x, y = key.split('_')
            if name is None:
                self._files.pop((int(x), int(y)), None)
            else:
                self._files[int(x), int(y)] = name
        position = entry['position']
        self.state = StoreState(
            int(entry['revision']),
            int(entry['stamp_ns']),
            int(entry['next_id']),
            None if position is None else (float(position[0]), float(position[1])),
        )

    def _write_journal(self) -> None:
        """Write the journal anew: the header and one line that says everything."""
        path = self.folder / JOURNAL
        temporary = path.with_suffix('.part')
        with temporary.open('wb') as file:
            file.write(_line({'format': FORMAT, 'tile_size_m': self.tile_size_m}))
            names: dict[Tile, str | None] = dict(self._files)
            file.write(_line(_entry(names, self.state)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        self._sync_folder()

    def _delete_unnamed(self) -> None:
        """Delete the files of commits that were not finished."""
        named = set(self._files.values())
        for path in self.folder.glob('tile_*.npz'):
            if _TILE_NAME.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)

    def _sync_folder(self) -> None:
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _entry(names: Mapping[Tile, str | None], state: StoreState) -> dict[str, Any]:
    return {
        'revision': state.revision,
        'stamp_ns': state.stamp_ns,
        'next_id': state.next_id,
        'position': state.position,
        'tiles': {f'{x}_{y}': name for (x, y), name in names.items()},
    }


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, separators=(',', ':')).encode()
    return b'%08x %s\n' % (zlib.crc32(text), text)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the content of a line of the journal; None where it is not whole."""
    checksum, _, text = line.partition(b' ')
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        result = json.loads(text)
    except ValueError:
        return None
    return result if isinstance(result, dict) else None


def tracks_to_bytes(tracks: Sequence[Track]) -> bytes:
    """Return elements as the bytes of a NumPy archive (arrays only, nothing is pickled)."""
    arrays: dict[str, Any] = {
        name: np.array([getattr(track, name) for track in tracks]) for name in _SCALARS
    }
    arrays['count'] = np.array([len(track) for track in tracks])
    for name in VERTEX_FIELDS:
        arrays[name] = np.concatenate([getattr(track, name) for track in tracks])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def tracks_from_bytes(content: bytes) -> list[Track]:
    """Return the elements that `tracks_to_bytes` wrote.

    Raises:
        ValueError: the bytes are something else.
        KeyError: an array is missing.
    """
    try:
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {name: archive[name] for name in (*_SCALARS, 'count', *VERTEX_FIELDS)}
    except (BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(str(error)) from None
    ends = np.cumsum(arrays['count'])
    result = []
    for index, end in enumerate(ends.tolist()):
        part = slice(end - int(arrays['count'][index]), end)
        result.append(
            Track(
                id=int(arrays['id'][index]),
                category=int(arrays['category'][index]),
                closed=bool(arrays['closed'][index]),
                clipped=bool(arrays['clipped'][index]),
                **{name: arrays[name][part] for name in VERTEX_FIELDS},
            )
        )
    return result
