"""Where `gsmap synth` puts its drives: bags, or the files of a dataset; one class per layout.

The functions that render run in worker processes; a drive that was cut off leaves nothing under
its name, and one that is complete is not made again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.nuscenes_map import Place
    from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording

NUSCENES_VERSION = 'v1.0-mini'


@dataclass(frozen=True)
class DriveResult:
    """What a worker reports about a drive."""

    name: str
    path: str
    num_frames: int
    num_images: int
    seconds: float
    size_bytes: int
    town_hash: str
    trajectory_hash: str
    ground_truth_hash: str
    conditions: str


class Layout(Protocol):
    """A form in which drives are stored."""

    def is_there(self, spec: DriveSpec) -> bool:
        """Whether a drive need not be made."""
        ...

    def maker(self, spec: DriveSpec) -> Callable[[], DriveResult]:
        """Return what makes a drive; it can be sent to another process."""
        ...

    def finish(self) -> None:
        """Write what all drives have in common."""
        ...


def layout_of(name: str, out: Path, specs: Sequence[DriveSpec], overwrite: bool) -> Layout:
    """Return the layout with a name.

    Args:
        name: a key of `LAYOUTS`.
        out: folder of the drives or the dataset.
        specs: all drives.
        overwrite: make what exists again.

    Raises:
        ConfigError: the drives do not fit the layout.
        DataError: a complete dataset is there already.
    """
    return LAYOUTS[name](out, specs, overwrite)


class BagLayout:
    """One MCAP file a drive."""

    def __init__(self, out: Path, specs: Sequence[DriveSpec], overwrite: bool) -> None:
        self._out, self._overwrite = out, overwrite

    def is_there(self, spec: DriveSpec) -> bool:
        """Whether the file exists."""
        return not self._overwrite and self._path(spec).exists()

    def maker(self, spec: DriveSpec) -> Callable[[], DriveResult]:
        """Return what writes the file."""
        return partial(make_bag, spec, self._path(spec), self._overwrite)

    def finish(self) -> None:
        """Bags have nothing in common."""

    def _path(self, spec: DriveSpec) -> Path:
        return self._out / f'{spec.name}.mcap'


class Argoverse2Layout:
    """One log a drive, in the split of its town."""

    def __init__(self, out: Path, specs: Sequence[DriveSpec], overwrite: bool) -> None:
        from gsmap_core.data.synthetic import av2_layout

        av2_layout.check_drives(specs)
        self._out, self._overwrite = out, overwrite

    def is_there(self, spec: DriveSpec) -> bool:
        """Whether the log exists."""
        return not self._overwrite and self._path(spec).exists()

    def maker(self, spec: DriveSpec) -> Callable[[], DriveResult]:
        """Return what writes the log."""
        from gsmap_core.data.synthetic.av2_layout import fitted

        return partial(make_log, fitted(spec), self._path(spec), self._overwrite)

    def finish(self) -> None:
        """Logs have nothing in common."""

    def _path(self, spec: DriveSpec) -> Path:
        from gsmap_core.data.synthetic.av2_layout import split_of

        return self._out / split_of(spec) / spec.name


class NuscenesLayout:
    """One dataset: images by drive, tables and maps over all of them when the last is there.

    Until then the records of a finished drive lie in a folder of their own.
    """

    def __init__(self, out: Path, specs: Sequence[DriveSpec], overwrite: bool) -> None:
        from gsmap_core.data.synthetic.nuscenes_layout import plan_places
        from gsmap_core.errors import DataError

        self._out, self._specs = out, specs
        self._places, _ = plan_places(specs)
        self._parts = out / f'.{NUSCENES_VERSION}.parts'
        if overwrite:
            shutil.rmtree(out / NUSCENES_VERSION, ignore_errors=True)
            shutil.rmtree(self._parts, ignore_errors=True)
        elif (out / NUSCENES_VERSION).exists():
            raise DataError(
                f"'{out}' holds a complete dataset {NUSCENES_VERSION}; choose another folder, or "
                '--overwrite to make it again'
            )

    def is_there(self, spec: DriveSpec) -> bool:
        """Whether the drive was finished by an earlier run with the same options.

        Raises:
            DataError: the options were others.
        """
        from gsmap_core.errors import DataError

        if not self._part(spec).is_file():
            return False
        if json.loads(self._part(spec).read_text(encoding='utf-8'))['made_as'] != self._key(spec):
            raise DataError(
                f"'{self._out}' holds a part of a dataset with other options or towns; repeat "
                'them, choose another folder, or --overwrite'
            )
        return True

    def maker(self, spec: DriveSpec) -> Callable[[], DriveResult]:
        """Return what writes images and records."""
        place = self._places[spec.town_seed]
        return partial(make_scene, spec, place, self._out, self._part(spec), self._key(spec))

    def finish(self) -> None:
        """Write maps and tables."""
        from gsmap_core.data.synthetic.nuscenes_layout import write_tables

        records = [
            json.loads(self._part(spec).read_text(encoding='utf-8'))['records']
            for spec in self._specs
        ]
        write_tables(self._out, NUSCENES_VERSION, records, self._specs)
        shutil.rmtree(self._parts)

    def _part(self, spec: DriveSpec) -> Path:
        return self._parts / f'{spec.name}.json'

    def _key(self, spec: DriveSpec) -> dict[str, Any]:
        place = self._places[spec.town_seed]
        return {
            **dataclasses.asdict(spec),
            'location': place.location,
            'offset': [float(value) for value in place.offset],
        }


#: Every layout by its name on the command line.
LAYOUTS: dict[str, Callable[[Path, Sequence[DriveSpec], bool], Layout]] = {
    'bag': BagLayout,
    'nuscenes': NuscenesLayout,
    'av2': Argoverse2Layout,
}


def make_bag(spec: DriveSpec, path: Path, overwrite: bool) -> DriveResult:
    """Render and write one drive; a drive that is cut off leaves no file under its name."""
    from gsmap_core.data.bag import write_bag
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    start = time.monotonic()
    recording = SyntheticRecording(spec)
    summary = write_bag(recording, path, lidar=spec.lidar, overwrite=overwrite)
    return _result(recording, path, start, summary.size_bytes)


def make_log(spec: DriveSpec, folder: Path, overwrite: bool) -> DriveResult:
    """Render and write one drive as a log of Argoverse 2."""
    from gsmap_core.data.synthetic.av2_layout import write_log
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    start = time.monotonic()
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    recording = SyntheticRecording(spec)
    write_log(recording, folder)
    size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    return _result(recording, folder, start, size)


def make_scene(
    spec: DriveSpec, place: Place, out: Path, part: Path, key: dict[str, Any]
) -> DriveResult:
    """Render and write one drive as a scene of nuScenes, and keep its records."""
    from gsmap_core.data.synthetic.dataset_files import write_table
    from gsmap_core.data.synthetic.nuscenes_layout import write_drive
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    start = time.monotonic()
    recording = SyntheticRecording(spec)
    records = write_drive(recording, place, out)
    write_table(part, {'made_as': key, 'records': records})
    files = [out / row['filename'] for row in records['sample_data']]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return _result(recording, out, start, size)


def _result(recording: SyntheticRecording, path: Path, start: float, size: int) -> DriveResult:
    return DriveResult(
        name=recording.name,
        path=str(path),
        num_frames=len(recording),
        num_images=len(recording) * len(recording.rig),
        seconds=round(time.monotonic() - start, 3),
        size_bytes=size,
        town_hash=recording.metadata['town_hash'],
        trajectory_hash=recording.trajectory_hash(),
        ground_truth_hash=recording.ground_truth_hash(),
        conditions=recording.conditions.name,
    )
