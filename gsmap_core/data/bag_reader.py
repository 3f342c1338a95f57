"""Reads the messages of a rosbag2 recording by topic and number, in any order, without ROS.

MCAP files are indexed once; a message is then one read at a known place, which is what training
needs. Other storages (sqlite3, MCAP without chunks) go through `rosbags` and are slower. What the
messages mean is not known here.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.rosbag2.reader import DirectoryReader
from rosbags.rosbag2.storage_mcap import McapReader, decompress
from rosbags.serde import SerdeError
from rosbags.typesys import (
    Stores,
    TypesysError,
    get_types_from_idl,
    get_types_from_msg,
    get_typestore,
)
from rosbags.typesys.store import Typestore

from gsmap_core.data.bag_metadata import read_custom_metadata
from gsmap_core.data.messages import typestore
from gsmap_core.errors import DataError

_log = logging.getLogger(__name__)

# What rosbags lets escape from files that are cut off or are something else.
_BROKEN_FILE = (ReaderError, OSError, TypeError, ValueError, struct.error, KeyError, EOFError)
_MESSAGE_OPCODE = 0x05
_INDEX_OPCODE = 0x07
_RECORD_HEADER = struct.Struct('<BQ')
_MESSAGE_HEADER = struct.Struct('<BQHIQQ')


@dataclass(frozen=True)
class QosProfile:
    """Quality of service that a topic was recorded with.

    Args:
        reliability: `reliable` or `best_effort` (or another rmw name).
        durability: `volatile` or `transient_local`.
        history: `keep_last` or `keep_all`.
        depth: messages kept.
    """

    reliability: str = 'reliable'
    durability: str = 'volatile'
    history: str = 'keep_last'
    depth: int = 10


@dataclass(frozen=True)
class TopicInfo:
    """One topic of a recording.

    Args:
        name: with its leading slash.
        type: message type, `package/msg/Name`.
        count: recorded messages.
        qos: as offered by the first publisher, None if not recorded.
    """

    name: str
    type: str
    count: int
    qos: QosProfile | None = None


class RawMessage(NamedTuple):
    """One message as recorded: topic, type, log time [ns] and CDR bytes."""

    topic: str
    type: str
    log_time_ns: int
    data: bytes


class _Entries(NamedTuple):
    """Where the messages of one topic lie, by log time. Arrays of one length."""

    times_ns: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]


class _Chunk(NamedTuple):
    """One chunk of one MCAP file."""

    path: Path
    data_start: int
    compression: str
    compressed_size: int
    size: int


class BagReader:
    """Random access to the messages of one recording. Can be pickled; files open when needed.

    Args:
        path: folder with `metadata.yaml`, or a bare `.mcap` or `.db3` file.

    Raises:
        DataError: the path does not exist, is cut off, or is no rosbag2 recording.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = _resolve(Path(path))
        self._files: dict[Path, io.FileIO] = {}
        self._slow: Reader | None = None
        self._cached_chunk: tuple[int, bytes] | None = None
        self._chunks: list[_Chunk] = []
        self._entries: dict[str, _Entries] | None = {}
        self.metadata: dict[str, str] = {}
        try:
            with Reader(self.path) as reader:
                self._read_header(reader)
                self._build_index(reader)
            self.metadata = read_custom_metadata(self.path)
        except DataError:
            raise
        except _BROKEN_FILE as error:
            raise DataError(_broken_text(self.path, error)) from error

    def _read_header(self, reader: Reader) -> None:
        self.topics: dict[str, TopicInfo] = {}
        definitions: dict[str, tuple[str, str]] = {}
        counts: dict[str, int] = {}
        for connection in reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
            known = self.topics.get(connection.topic)
            if known is not None and known.type != connection.msgtype:
                raise DataError(
                    f"'{self.path}': topic '{connection.topic}' holds both {known.type} and "
                    f'{connection.msgtype}; expected one type per topic'
                )
            self.topics[connection.topic] = TopicInfo(
                connection.topic, connection.msgtype, counts[connection.topic], _qos(connection)
            )
            if connection.msgdef.format != MessageDefinitionFormat.NONE:
                is_idl = connection.msgdef.format == MessageDefinitionFormat.IDL
                definitions[connection.msgtype] = (
                    'idl' if is_idl else 'msg',
                    connection.msgdef.data,
                )
        self._definitions = tuple(
            (name, *definition) for name, definition in sorted(definitions.items())
        )
        self.message_count = reader.message_count
        self.start_ns = reader.start_time if self.message_count else 0
        self.end_ns = reader.end_time - 1 if self.message_count else 0

    def _build_index(self, reader: Reader) -> None:
        storages = (
            reader.storage.storages
            if isinstance(reader.storage, DirectoryReader)
            else [reader.storage]
        )
        is_plain = not reader.compression_mode or reader.compression_mode == 'storage'
        parts: dict[str, list[tuple[npt.NDArray[np.int64], ...]]] = {}
        for storage in storages:
            if not (isinstance(storage, McapReader) and is_plain) or (
                not storage.chunks and storage.metadata.message_count
            ):
                self._entries = None
                break
            self._index_file(storage, parts)
        if self._entries is None:
            _log.info("'%s' has no chunk index; reading it is slower than an MCAP bag", self.path)
            slow: dict[str, list[int]] = {name: [] for name in self.topics}
            for connection, time_ns, _ in reader.messages():
                slow[connection.topic].append(time_ns)
            self._slow_times = {
                name: np.array(times, dtype=np.int64) for name, times in slow.items()
            }
            return
        for name in self.topics:
            columns = [np.concatenate(column) for column in zip(*parts.get(name, []), strict=True)]
            if not columns:
                columns = [np.zeros(0, dtype=np.int64)] * 3
            order = np.lexsort((columns[2], columns[1], columns[0]))
            self._entries[name] = _Entries(*(column[order] for column in columns))

    def _index_file(
        self, storage: McapReader, parts: dict[str, list[tuple[npt.NDArray[np.int64], ...]]]
    ) -> None:
        topics = {connection.id: connection.topic for connection in storage.connections}
        path = Path(str(storage.path))
        with path.open('rb') as file:
            for chunk in storage.chunks:
                number = len(self._chunks)
                data_start = chunk.chunk_start_offset + 9 + 40 + len(chunk.compression)
                self._chunks.append(
                    _Chunk(
                        path,
                        data_start,
                        chunk.compression,
                        chunk.compressed_size,
                        chunk.uncompressed_size,
                    )
                )
                file.seek(chunk.chunk_start_offset + chunk.chunk_length)
                block = file.read(chunk.message_index_length)
                at = 0
                while at < len(block):
                    opcode, length = _RECORD_HEADER.unpack_from(block, at)
                    if opcode == _INDEX_OPCODE:
                        channel, size = struct.unpack_from('<HI', block, at + 9)
                        pairs = np.frombuffer(block, '<u8', size // 8, at + 15).astype(np.int64)
                        times, offsets = pairs[0::2], pairs[1::2]
                        if channel in topics:
                            numbers = np.full(len(times), number, dtype=np.int64)
                            parts.setdefault(topics[channel], []).append((times, numbers, offsets))
                    at += 9 + length

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind."""
        return {**self.__dict__, '_files': {}, '_slow': None, '_cached_chunk': None}

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()
        if self._slow is not None:
            self._slow.close()
            self._slow = None

    def log_times_ns(self, topic: str) -> npt.NDArray[np.int64]:
        """Return the (count,) log times of a topic [ns], ascending.

        Raises:
            DataError: the recording has no such topic.
        """
        self._require(topic)
        return self._slow_times[topic] if self._entries is None else self._entries[topic].times_ns

    def header_stamps_ns(self, topic: str) -> npt.NDArray[np.int64]:
        """Return the (count,) header stamps of a topic whose messages begin with a header [ns].

        In the order of the log times, so not necessarily ascending.
        """
        self._require(topic)
        count = self.topics[topic].count
        if self._entries is None:
            data = [message.data for message in self.messages([topic])]
        else:
            data = [self._read_indexed(topic, index, limit=12) for index in range(count)]
        stamps = np.zeros(len(data), dtype=np.int64)
        for index, item in enumerate(data):
            if len(item) < 12:
                raise DataError(
                    f"'{self.path}': topic '{topic}': message {index} has {len(item)} bytes; "
                    'expected a header; re-record this topic'
                )
            sec, nanosec = struct.unpack_from('<iI' if item[1] & 1 else '>iI', item, 4)
            stamps[index] = sec * 1_000_000_000 + nanosec
        return stamps

    def read(self, topic: str, index: int) -> bytes:
        """Return the CDR bytes of one message of a topic, numbered by log time.

        Raises:
            DataError: no such topic or message, or the file is cut off there.
        """
        count = self._require(topic).count
        if not 0 <= index < count:
            raise DataError(
                f"'{self.path}': topic '{topic}' has {count} messages; number {index} was asked"
            )
        if self._entries is not None:
            return self._read_indexed(topic, index)
        times = self._slow_times[topic]
        time_ns = int(times[index])
        reader = self._slow_reader()
        wanted = index - int(np.searchsorted(times, time_ns))
        connections = [c for c in reader.connections if c.topic == topic]
        found = list(reader.messages(connections, time_ns, time_ns + 1))
        return bytes(found[wanted][2])

    def message(self, topic: str, index: int) -> Any:
        """Return one message of a topic, deserialised."""
        return self.deserialise(self.read(topic, index), topic)

    def deserialise(self, data: bytes, topic: str) -> Any:
        """Deserialise the bytes of a message of a topic with the recording's own definitions.

        Raises:
            DataError: the bytes are no such message.
        """
        type_name = self._require(topic).type
        store = _store_of(self._definitions) if self._definitions else typestore()
        try:
            return store.deserialize_cdr(data, type_name)
        except (SerdeError, TypesysError, *_BROKEN_FILE) as error:
            raise DataError(
                f"'{self.path}': topic '{topic}': {len(data)} bytes are no {type_name} ({error}); "
                're-record this topic'
            ) from error

    def messages(self, topics: Sequence[str] | None = None) -> Iterator[RawMessage]:
        """Yield messages by log time.

        Args:
            topics: only these; None: all.
        """
        names = list(self.topics) if topics is None else list(topics)
        for name in names:
            self._require(name)
        if self._entries is None:
            reader = self._slow_reader()
            connections = [c for c in reader.connections if c.topic in names]
            for connection, time_ns, data in reader.messages(connections) if connections else ():
                yield RawMessage(connection.topic, connection.msgtype, time_ns, bytes(data))
            return
        if not names:
            return
        times = np.concatenate([self._entries[name].times_ns for name in names])
        chunks = np.concatenate([self._entries[name].chunks for name in names])
        offsets = np.concatenate([self._entries[name].offsets for name in names])
        owner = np.repeat(np.arange(len(names)), [len(self._entries[n].times_ns) for n in names])
        index = np.concatenate([np.arange(len(self._entries[n].times_ns)) for n in names])
        # Equal times keep the order in which they were written.
        for row in np.lexsort((offsets, chunks, times)):
            name = names[owner[row]]
            data = self._read_indexed(name, int(index[row]))
            yield RawMessage(name, self.topics[name].type, int(times[row]), data)

    def _require(self, topic: str) -> TopicInfo:
        try:
            return self.topics[topic]
        except KeyError:
            raise DataError(
                f"'{self.path}' has no topic '{topic}'; it has {', '.join(sorted(self.topics))}"
            ) from None

    def _slow_reader(self) -> Reader:
        if self._slow is None:
            self._slow = Reader(self.path)
            self._slow.open()
        return self._slow

    def _read_indexed(self, topic: str, index: int, limit: int | None = None) -> bytes:
        assert self._entries is not None
        entries = self._entries[topic]
        number, offset = int(entries.chunks[index]), int(entries.offsets[index])
        chunk = self._chunks[number]
        if chunk.compression:
            data = self._chunk_data(number)
            head = data[offset : offset + _MESSAGE_HEADER.size]
        else:
            file = self._file(chunk.path)
            # Not seek and read: forked workers share the position of an open file.
            head = _pread(file, _MESSAGE_HEADER.size, chunk.data_start + offset)
        if len(head) < _MESSAGE_HEADER.size or head[0] != _MESSAGE_OPCODE:
            raise DataError(_broken_text(chunk.path, f'no message record of {topic} at {offset}'))
        size = _MESSAGE_HEADER.unpack(head)[1] - (_MESSAGE_HEADER.size - _RECORD_HEADER.size)
        start = offset + _MESSAGE_HEADER.size
        wanted = size if limit is None else min(size, limit)
        if chunk.compression:
            result = data[start : start + wanted]
        else:
            result = _pread(file, wanted, chunk.data_start + start)
        if len(result) < wanted:
            raise DataError(_broken_text(chunk.path, f'a message of {topic} is cut off'))
        return result

    def _chunk_data(self, number: int) -> bytes:
        if self._cached_chunk is None or self._cached_chunk[0] != number:
            chunk = self._chunks[number]
            packed = _pread(self._file(chunk.path), chunk.compressed_size, chunk.data_start)
            try:
                unpacked = decompress(packed, chunk.compression, chunk.size, 0)
            except Exception as error:  # each codec has its own exception
                raise DataError(_broken_text(chunk.path, error)) from error
            self._cached_chunk = (number, unpacked)
        return self._cached_chunk[1]

    def _file(self, path: Path) -> io.FileIO:
        file = self._files.get(path)
        if file is None:
            try:
                file = self._files[path] = io.FileIO(path, 'rb')
            except OSError as error:
                raise DataError(_broken_text(path, error)) from error
        return file


def _pread(file: io.FileIO, size: int, position: int) -> bytes:
    return os.pread(file.fileno(), size, position)


def _resolve(path: Path) -> Path:
    """Return the path that `rosbags` opens.

    Raises:
        DataError: there is no recording.
    """
    if not path.exists():
        raise DataError(f"bag '{path}' does not exist; give a bag folder or an .mcap file")
    if path.is_dir() and not (path / 'metadata.yaml').is_file():
        files = sorted(path.glob('*.mcap'))
        if len(files) == 1:
            _log.warning("'%s' has no metadata.yaml; reading %s alone", path, files[0].name)
            return files[0]
        raise DataError(
            f"'{path}' has no metadata.yaml and {len(files)} .mcap files; expected a bag folder: "
            f'`ros2 bag reindex {path}` writes the missing file'
        )
    if path.is_file() and path.suffix not in ('.mcap', '.db3'):
        raise DataError(
            f"'{path}' is no rosbag2 recording; expected a bag folder, an .mcap or a .db3 file"
        )
    return path


def _broken_text(path: Path, reason: object) -> str:
    name = path.name if path.suffix == '.mcap' else 'FILE.mcap'
    return (
        f"bag '{path}' cannot be read ({reason}): cut off while recording, or no rosbag2 file; "
        f'`mcap recover {name} -o recovered.mcap` saves what is there'
    )


def _qos(connection: Connection) -> QosProfile | None:
    profiles: list[Qos] = (
        connection.ext.offered_qos_profiles
        if isinstance(connection.ext, ConnectionExtRosbag2)
        else []
    )
    if not profiles:
        return None
    first = profiles[0]
    return QosProfile(
        reliability=first.reliability.name.lower(),
        durability=first.durability.name.lower(),
        history=first.history.name.lower(),
        depth=first.depth,
    )


@lru_cache(maxsize=16)
def _store_of(definitions: tuple[tuple[str, str, str], ...]) -> Typestore:
    """Return the types that a recording carries; recordings of one writer share them."""
    store = get_typestore(Stores.EMPTY)
    types: dict[str, Any] = {}
    separator = '=' * 80 + '\n'
    for name, kind, text in definitions:
        if kind == 'msg':
            types.update(get_types_from_msg(text, name))
        elif text.startswith(f'{separator}IDL: '):
            for part in text.split(separator)[1:]:
                types.update(get_types_from_idl(part.split('\n', 1)[1]))
        else:
            types.update(get_types_from_idl(text))
    store.register(types)
    return store
