"""The metadata of safetensors files: read without torch, rewritten without touching a tensor.

Such a file begins with the length of its header (8 bytes, little endian), then the header (JSON:
place and type of every tensor, free text under `__metadata__`), then the bytes of the tensors.
Places count from the end of the header, so that a header of another length leaves them valid.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsmap_core.atomic_files import atomic_path
from gsmap_core.errors import CheckpointError

_LENGTH = struct.Struct('<Q')
#: What the format allows for a header [bytes].
_MAX_HEADER = 100_000_000
#: The tensors begin at a multiple of this [bytes].
_ALIGNMENT = 8


def read_header_metadata(path: Path | str) -> dict[str, str]:
    """Return the free text of a safetensors file.

    Raises:
        CheckpointError: the file is missing, truncated or something else.
    """
    return _read_header(Path(path))[0].get('__metadata__') or {}


def write_header_metadata(path: Path | str, changes: Mapping[str, str]) -> None:
    """Change entries of the free text of a safetensors file, whole or not at all.

    The bytes of the tensors, their names and types stay exactly as they are. A kill at any moment
    leaves the old file or the new one.

    Args:
        path: the file.
        changes: entries to add or replace.

    Raises:
        CheckpointError: the file is missing, truncated, something else, or cannot be written.
    """
    path = Path(path)
    header, size = _read_header(path)
    header['__metadata__'] = {**(header.get('__metadata__') or {}), **changes}
    text = json.dumps(header, separators=(',', ':')).encode('utf-8')
    text += b' ' * (-len(text) % _ALIGNMENT)
    try:
        with (
            atomic_path(path, keep_mode=True) as temporary,
            temporary.open('wb') as target,
            path.open('rb') as source,
        ):
            target.write(_LENGTH.pack(len(text)) + text)
            source.seek(_LENGTH.size + size)
            shutil.copyfileobj(source, target, 1 << 20)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint '{path}' cannot be written ({error}); check the folder and its "
            'permissions'
        ) from None


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header and its length in the file [bytes]."""
    try:
        with path.open('rb') as file:
            (size,) = _LENGTH.unpack(file.read(_LENGTH.size))
            if size > _MAX_HEADER:
                raise ValueError(f'a header of {size} bytes')
            text = file.read(size)
        header = json.loads(text)
        if len(text) != size or not isinstance(header, dict):
            raise ValueError('the header is cut off')
        tensors = [entry for key, entry in header.items() if key != '__metadata__']
        end = max((int(entry['data_offsets'][1]) for entry in tensors), default=0)
        if path.stat().st_size != _LENGTH.size + size + end:
            raise ValueError(f'expected {_LENGTH.size + size + end} bytes')
    except FileNotFoundError:
        raise CheckpointError(
            f"checkpoint '{path}' is not there; give the path of a checkpoint (*.safetensors)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise CheckpointError(
            f"checkpoint '{path}' is truncated or not a safetensors file ({error}); copy or "
            'download it again'
        ) from None
    return header, size
