"""Writes any messages as an MCAP recording that ROS 2 plays.

On disk a recording is the folder that rosbag2 itself would write: `NAME/metadata.yaml` and
`NAME/NAME.mcap`; a path that ends in `.mcap` gives the bare file. It appears under its name only
when it is complete. Chunks are small and not compressed: JPEG does not shrink further, and
training reads single messages.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from gsmap_core.data import messages as msg
from gsmap_core.data.bag_reader import QosProfile
from gsmap_core.errors import DataError

# rosbag2 writes the longest duration for "no limit".
_NO_LIMIT = QosTime(9223372036, 854775807)


@dataclass(frozen=True)
class BagSummary:
    """What was written.

    Args:
        path: the recording.
        topics: messages per topic.
        num_frames: camera sets; 0 for recordings that are no drive.
        duration_s: from the first to the last message [s].
        size_bytes: on disk.
    """

    path: Path
    topics: dict[str, int]
    num_frames: int
    duration_s: float
    size_bytes: int


@dataclass
class _Topic:
    connection: Connection
    type: str
    count: int = 0


class BagRecorder:
    """Writes messages one by one; use as a context manager.

    Leaving the block normally completes the recording under its name; leaving it by an exception
    removes what was written.

    Args:
        path: folder to make, or a file ending in `.mcap`.
        metadata: free text stored with the recording.
        overwrite: replace an existing recording when this one is complete.

    Raises:
        DataError: the path exists and `overwrite` is off.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: Mapping[str, str] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self._overwrite = overwrite
        if self.path.exists() and not overwrite:
            raise DataError(
                f"'{self.path}' exists already; remove it, choose another name or ask to overwrite"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Beside the final place, so that the last step is a rename on one file system.
        self._partial = Path(
            tempfile.mkdtemp(prefix=f'.{self.path.name}.partial-', dir=self.path.parent)
        )
        self._inner = self._partial / (self.path.stem if self._is_file else self.path.name)
        self._writer = Writer(self._inner, version=8, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        for key, value in (metadata or {}).items():
            self._writer.set_custom_data(key, str(value))
        self._topics: dict[str, _Topic] = {}
        self._first_ns = self._last_ns = 0
        self._count = 0

    @property
    def _is_file(self) -> bool:
        return self.path.suffix == '.mcap'

    def add_topic(self, topic: str, type_name: str, qos: QosProfile = QosProfile()) -> None:  # noqa: B008
        """Declare a topic before its first message.

        Args:
            topic: with its leading slash.
            type_name: `package/msg/Name`, known to the type store.
            qos: recorded with it, used by players.

        Raises:
            DataError: the topic was declared with another type, or the type is unknown.
        """
        if topic in self._topics:
            if self._topics[topic].type != type_name:
                raise DataError(
                    f"topic '{topic}' was declared as {self._topics[topic].type}, "
                    f'now as {type_name}; expected one type per topic'
                )
            return
        store = msg.typestore()
        if type_name not in store.fielddefs:
            raise DataError(
                f"topic '{topic}': message type '{type_name}' is unknown; "
                'expected a type of ROS 2 Kilted or of gsmap_ros'
            )
        connection = self._writer.add_connection(
            topic, type_name, typestore=store, offered_qos_profiles=[_to_rosbags_qos(qos)]
        )
        self._topics[topic] = _Topic(connection, type_name)

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append one message.

        Args:
            topic: declared with `add_topic`.
            stamp_ns: its log time [ns], not negative.
            message: CDR bytes, or a message of the type store.

        Raises:
            DataError: the topic was not declared, or the stamp is negative.
        """
        entry = self._topics.get(topic)
        if entry is None:
            raise DataError(f"topic '{topic}' was not declared; call add_topic first")
        if stamp_ns < 0:
            raise DataError(f"topic '{topic}': stamp {stamp_ns} ns is negative")
        is_bytes = isinstance(message, (bytes, bytearray, memoryview))
        data = bytes(message) if is_bytes else msg.serialise(message)
        self._writer.write(entry.connection, int(stamp_ns), data)
        entry.count += 1
        self._first_ns = min(self._first_ns, stamp_ns) if self._count else stamp_ns
        self._last_ns = max(self._last_ns, stamp_ns)
        self._count += 1

    def set_metadata(self, key: str, value: str) -> None:
        """Add or replace one entry of the free text; possible until the end."""
        self._writer.set_custom_data(key, value)

    def close(self) -> BagSummary:
        """Complete the recording and give it its name."""
        try:
            self._writer.close()
            for file in self._inner.iterdir():
                _sync(file)
            _sync(self._inner)
            source = self._inner / f'{self._inner.name}.mcap' if self._is_file else self._inner
            old = self._partial / 'replaced'
            if self.path.exists():
                if not self._overwrite:
                    raise DataError(
                        f"'{self.path}' was made by someone else meanwhile; nothing was replaced"
                    )
                self.path.rename(old)
            source.rename(self.path)
            _sync(self.path.parent)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
        files = [self.path] if self.path.is_file() else list(self.path.iterdir())
        return BagSummary(
            path=self.path,
            topics={name: entry.count for name, entry in sorted(self._topics.items())},
            num_frames=0,
            duration_s=(self._last_ns - self._first_ns) / 1e9,
            size_bytes=sum(file.stat().st_size for file in files),
        )

    def abort(self) -> None:
        """Remove what was written."""
        self._writer.abort()
        shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> BagRecorder:
        """Return the recorder."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the recording, or remove it after an exception."""
        if not self._partial.exists():
            return  # closed by hand
        if kind is None:
            self.close()
        else:
            self.abort()


def _to_rosbags_qos(qos: QosProfile) -> Qos:
    return Qos(
        history=QosHistory[qos.history.upper()],
        depth=qos.depth,
        reliability=QosReliability[qos.reliability.upper()],
        durability=QosDurability[qos.durability.upper()],
        deadline=_NO_LIMIT,
        lifespan=_NO_LIMIT,
        liveliness=QosLiveliness.SYSTEM_DEFAULT,
        liveliness_lease_duration=_NO_LIMIT,
        avoid_ros_namespace_conventions=False,
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
