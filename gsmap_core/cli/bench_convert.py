"""`gsmap bench convert`: how fast camera images become a bag, beside a plain copy of the files.

Both read the same JPEG files and make what they write durable. What the bag costs beyond the copy
is the messages around the images; CPU seconds say whether disk or processor is the limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.data.drives import PoseSample, RecordedFrame
    from gsmap_core.structures import CameraRig

_START_NS = 1_700_000_000_000_000_000
_PERIOD_NS = 83_333_333
#: Different images in turn: a whole set of files would take minutes to compress.
_NUM_PICTURES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--sets', type=int, default=40, metavar='N', help='camera sets (40)')
    parser.add_argument(
        '--rig', default='nuscenes_like', help='rig that gives cameras and sizes (nuscenes_like)'
    )
    parser.add_argument('--quality', type=int, default=90, help='JPEG quality (90)')
    parser.add_argument('--repeats', type=int, default=3, help='rounds (3)')
    parser.add_argument(
        '--folder', metavar='DIR', help='where to write: the disk that is measured (temporary)'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from gsmap_core.errors import ConfigError

    for name in ('sets', 'repeats'):
        if getattr(args, name) < 1:
            raise ConfigError(f'--{name} {getattr(args, name)}; expected 1 or more')
    with tempfile.TemporaryDirectory(prefix='gsmap-bench-', dir=args.folder) as folder:
        report = measure(Path(folder), args.sets, args.rig, args.quality, args.repeats)
    if args.json:
        print(json.dumps(report))
        return 0
    print(
        f'{report["sets"]} sets, {report["images"]} images, {report["megabytes"]:.1f} MB; '
        f'median of {report["repeats"]}'
    )
    for way in ('copy', 'convert'):
        values = report[way]
        print(
            f'  {way:8s} {values["mb_per_s"]:8.1f} MB/s  {values["seconds"]:.3f} s, of them '
            f'{values["cpu_seconds"]:.3f} s on the processor'
        )
    print(f'  convert reaches {report["share_of_copy"]:.0%} of the copy')
    return 0


def measure(
    folder: Path, num_sets: int, rig_name: str, quality: int, repeats: int
) -> dict[str, Any]:
    """Time both ways in turn.

    Args:
        folder: where files are written; emptied again by the caller.
        num_sets: camera sets.
        rig_name: gives cameras and image sizes.
        quality: of the JPEG files.
        repeats: rounds.
    """
    from gsmap_core.data.bag import write_bag
    from gsmap_core.rig import load_rig

    recording = FileRecording(folder / 'source', load_rig(rig_name), num_sets)
    size = recording.write_files(quality)
    times: dict[str, list[tuple[float, float]]] = {'copy': [], 'convert': []}
    for repeat in range(repeats):
        # What else the machine does hits both ways alike.
        for way in ('copy', 'convert') if repeat % 2 == 0 else ('convert', 'copy'):
            target = folder / way
            start, cpu = time.perf_counter(), time.process_time()
            if way == 'copy':
                copy_files(folder / 'source', target)
            else:
                write_bag(recording, target)
            times[way].append((time.perf_counter() - start, time.process_time() - cpu))
            shutil.rmtree(target)
    seconds = {way: statistics.median(t for t, _ in values) for way, values in times.items()}
    ways = {
        way: {
            'seconds': round(seconds[way], 4),
            'cpu_seconds': round(statistics.median(c for _, c in values), 4),
            'mb_per_s': round(size / 1e6 / seconds[way], 4),
        }
        for way, values in times.items()
    }
    return {
        'sets': num_sets,
        'images': num_sets * len(recording.rig),
        'megabytes': size / 1e6,
        'repeats': repeats,
        **ways,
        'share_of_copy': round(seconds['copy'] / seconds['convert'], 4),
    }


def copy_files(source: Path, target: Path) -> None:
    """Copy all files of a folder, durably."""
    target.mkdir()
    for file in sorted(source.iterdir()):
        shutil.copyfile(file, target / file.name)
    for file in target.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


@dataclass(frozen=True)
class FileRecording:
    """Images in a folder as a `data.drives.Recording`, read when they are asked for.

    Args:
        folder: of the images.
        rig: cameras.
        num_sets: camera sets, 12 per second.
    """

    folder: Path
    rig: CameraRig
    num_sets: int
    name: str = 'bench'
    global_map: None = None

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return self.num_sets

    @property
    def metadata(self) -> dict[str, str]:
        """Source."""
        return {'source': 'gsmap bench convert'}

    @property
    def poses(self) -> list[PoseSample]:
        """Driving straight ahead at 50 Hz."""
        import numpy as np

        from gsmap_core.data.drives import PoseSample

        samples = []
        for stamp in range(_START_NS - 10**8, self._stamp_ns(self.num_sets) + 10**8, 20_000_000):
            pose = np.eye(4)
            pose[0, 3] = (stamp - _START_NS) * 1e-8
            samples.append(PoseSample(stamp, pose))
        return samples

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the camera sets."""
        from gsmap_core.data.camera_files import read_file
        from gsmap_core.data.drives import RecordedFrame, RecordedImage

        for index in range(self.num_sets):
            stamp = self._stamp_ns(index)
            images = tuple(
                RecordedImage(name, stamp, read_file(self._path(index, name), 'image'))
                for name in self.rig.names
            )
            yield RecordedFrame(stamp, images)

    def write_files(self, quality: int) -> int:
        """Write images that compress about as well as pictures of a street; return all bytes."""
        import cv2
        import numpy as np

        self.folder.mkdir(parents=True)
        random, size = np.random.default_rng(0), 0
        for camera in self.rig.cameras:
            coded = []
            for _ in range(min(_NUM_PICTURES, self.num_sets)):
                shape = (camera.height_px // 4 + 1, camera.width_px // 4 + 1, 3)
                coarse = random.integers(0, 256, shape, dtype=np.uint8)
                picture = cv2.resize(coarse, (camera.width_px, camera.height_px))
                coded.append(
                    cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
                )
            for index in range(self.num_sets):
                data = coded[index % len(coded)]
                self._path(index, camera.name).write_bytes(data)
                size += len(data)
        return size

    def _path(self, index: int, camera: str) -> Path:
        return self.folder / f'{index:06d}-{camera}.jpg'

    def _stamp_ns(self, index: int) -> int:
        return _START_NS + index * _PERIOD_NS
