"""Reads the free text that a recording carries: rosbag2's custom data.

A folder has it in `metadata.yaml`; a bare MCAP file in a metadata record, which `rosbags` does
not hand out.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import yaml

_METADATA_OPCODE = 0x0C
_METADATA_INDEX_OPCODE = 0x0D
_RECORD_HEADER = struct.Struct('<BQ')
# Opcode and length of the footer, its three numbers, and the magic bytes after it.
_FOOTER_SIZE = 9 + 20 + 8


def read_custom_metadata(path: Path) -> dict[str, str]:
    """Return the free text that a recording carries, from its folder or from inside the file."""
    if path.is_dir():
        text = (path / 'metadata.yaml').read_text(encoding='utf-8')
        information = (yaml.safe_load(text) or {}).get('rosbag2_bagfile_information') or {}
    elif path.suffix == '.mcap':
        record = _mcap_metadata(path).get('rosbag2', {})
        information = yaml.safe_load(record.get('serialized_metadata', '')) or {}
    else:
        information = {}
    custom = information.get('custom_data') or {}
    return {str(key): str(value) for key, value in custom.items()}


def _mcap_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Return the metadata records of an MCAP file by name; none if it has no summary."""
    with path.open('rb') as file:
        file.seek(-_FOOTER_SIZE, io.SEEK_END)
        footer = file.read()
        summary_start, summary_offset_start = struct.unpack_from('<QQ', footer, 9)
        if not summary_start:
            return {}
        file.seek(0, io.SEEK_END)
        end = file.tell() - len(footer)
        file.seek(summary_start)
        summary = file.read((summary_offset_start or end) - summary_start)
        found: dict[str, dict[str, str]] = {}
        at = 0
        while at < len(summary):
            opcode, length = _RECORD_HEADER.unpack_from(summary, at)
            if opcode == _METADATA_INDEX_OPCODE:
                (offset,) = struct.unpack_from('<Q', summary, at + 9)
                file.seek(offset)
                kind, size = _RECORD_HEADER.unpack(file.read(9))
                if kind == _METADATA_OPCODE:
                    name, values = _parse_metadata(file.read(size))
                    found[name] = values
            at += 9 + length
    return found


def _parse_metadata(record: bytes) -> tuple[str, dict[str, str]]:
    def text(at: int) -> tuple[str, int]:
        (length,) = struct.unpack_from('<I', record, at)
        return record[at + 4 : at + 4 + length].decode('utf-8'), at + 4 + length

    name, at = text(0)
    (size,) = struct.unpack_from('<I', record, at)
    at, values = at + 4, {}
    end = at + size
    while at < end:
        key, at = text(at)
        values[key], at = text(at)
    return name, values
