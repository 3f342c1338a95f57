"""The datasets that `gsmap convert` knows: their options, and their scenes as jobs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.cli.convert_run import Job, Outcome
    from gsmap_core.data.drives import RecordedFrame
    from gsmap_core.data.synthetic.recording import DriveSpec
    from gsmap_core.structures import CameraRig, PerceptionRange


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Args:
        jobs: its scenes.
        problems: scenes that cannot be converted.
    """

    jobs: list[Job]
    problems: list[Outcome] = field(default_factory=list)


class Source:
    """A dataset."""

    help = ''
    description = ''
    source_help = ''

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options of this dataset."""

    def notice(self) -> str:
        """Return what has to be said about the licence."""
        return ''

    def find(self, args: argparse.Namespace) -> Found:
        """Return the scenes of the source.

        Raises:
            GsmapError: it is no such dataset, or an option has an impossible value.
        """
        raise NotImplementedError


class KeyFrames(Source):
    """Single key frames of nuScenes."""

    help = 'single nuScenes key frames, six JPEGs and calibration.json a folder; no devkit'
    description = 'Converts key-frame folders; those of one scene become one bag.'
    source_help = 'a key-frame folder or a folder of them'

    def notice(self) -> str:
        """Return the terms of the dataset."""
        from gsmap_core.data.keyframe_json import LICENCE_NOTICE

        return LICENCE_NOTICE

    def find(self, args: argparse.Namespace) -> Found:
        """Return the scenes of the key frames."""
        from gsmap_core.data.keyframe_json import find_recordings

        return Found([_job_of(recording) for recording in find_recordings(args.source)])


class NuScenes(Source):
    """The nuScenes dataset."""

    help = 'nuScenes: tables, images and map expansion, read with the devkit'
    description = 'Converts scenes of nuScenes; each becomes one bag with ground truth.'
    source_help = 'folder with maps/, samples/ and v1.0-*/'

    def notice(self) -> str:
        """Return the terms of the dataset."""
        from gsmap_core.data.nuscenes import LICENCE_NOTICE

        return LICENCE_NOTICE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare version, rate and ground truth."""
        parser.add_argument('--version', metavar='NAME', help='of the tables (the only one there)')
        parser.add_argument(
            '--rate',
            choices=('keyframes', 'sweeps'),
            default='keyframes',
            help='annotated samples (2 Hz) or every image (12 Hz) (keyframes)',
        )
        _add_truth_arguments(parser, ('maptr', 'maptrv2', 'streammapnet', 'maptracker'))
        parser.add_argument(
            '--reference',
            choices=('ego', 'lidar', 'published'),
            default='ego',
            help="frame of the ground truth; published: that of the variant's paper (ego)",
        )

    def find(self, args: argparse.Namespace) -> Found:
        """Return the scenes of the tables."""
        from gsmap_core.cli.convert_run import Outcome, wanted_names
        from gsmap_core.data.groundtruth_variants import GroundTruthOptions
        from gsmap_core.data.nuscenes import NuScenesDataset

        truth = None
        if not args.no_ground_truth:
            truth = GroundTruthOptions(
                variant=args.variant,
                reference=args.reference,
                range=_range_of(args, args.reference == 'lidar'),
                categories=_categories(args),
            )
        dataset = NuScenesDataset(args.source, args.version, rate=args.rate, ground_truth=truth)
        wanted = set(wanted_names(args, dataset.names))
        problems = [
            Outcome(name, 'failed', reason=reason or problem)
            for problem in dataset.problems
            for name, _, reason in [problem.partition(': ')]
        ]
        return Found([_job_of(drive) for drive in dataset if drive.name in wanted], problems)


class Argoverse2(Source):
    """The Argoverse 2 sensor dataset."""

    help = 'Argoverse 2 sensor dataset: images, poses and maps, read with av2'
    description = 'Converts logs of Argoverse 2; each becomes one bag with ground truth.'
    source_help = 'folder with train/, val/, test/, one of logs, or one log'

    def notice(self) -> str:
        """Return the terms of the dataset."""
        from gsmap_core.data.argoverse2 import LICENCE_NOTICE

        return LICENCE_NOTICE

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare split, rate, calibration and ground truth."""
        parser.add_argument(
            '--splits', nargs='+', metavar='NAME', help='only logs of these folders'
        )
        parser.add_argument(
            '--rate', type=int, choices=(2, 10, 20), default=2, help='camera sets per second (2)'
        )
        parser.add_argument(
            '--rig', metavar='NAME', help='rig instead of the calibration of the logs'
        )
        _add_truth_arguments(parser, ('maptr', 'maptrv2', 'streammapnet', 'maptracker'))
        parser.add_argument(
            '--heights',
            choices=('map', 'ground', 'none'),
            default='map',
            help='heights of the ground truth: of the map, of the ground raster, or planar (map)',
        )

    def find(self, args: argparse.Namespace) -> Found:
        """Return the logs of the folder."""
        from gsmap_core.cli.convert_run import Outcome, wanted_names
        from gsmap_core.data.argoverse2 import (
            Argoverse2Dataset,
            Argoverse2Options,
            Argoverse2TruthOptions,
        )
        from gsmap_core.rig import load_rig
        from gsmap_core.structures import PerceptionRange

        truth = None
        if not args.no_ground_truth:
            truth = Argoverse2TruthOptions(
                variant=args.variant,
                range=_range_of(args, False) or PerceptionRange(),
                heights=args.heights,
                categories=_categories(args),
            )
        options = Argoverse2Options(rate_hz=args.rate, lidar=not args.no_lidar, truth=truth)
        rig = load_rig(args.rig) if args.rig else None
        dataset = Argoverse2Dataset(args.source, args.splits, options=options, rig=rig)
        wanted = wanted_names(args, dataset.names)
        dataset = Argoverse2Dataset(
            args.source, args.splits, logs=wanted, options=options, rig=rig
        )
        jobs = [
            _job_of(drive if drive.has_calibration else WithoutCameras(drive)) for drive in dataset
        ]
        problems = [
            Outcome(problem.log, 'failed', reason=problem.reason) for problem in dataset.problems
        ]
        return Found(jobs, problems)


class Synthetic(Source):
    """Synthetic drives."""

    help = 'synthetic drives, rendered while they are converted'
    description = (
        'Renders synthetic drives, one per town, as bags. SRC is FIRST-LAST or SEED of the towns, '
        'then ,key=value with fields of the drives, as in 0-3,duration_s=10,rate_hz=2.'
    )
    source_help = 'seeds of the towns and options of the drives'

    def find(self, args: argparse.Namespace) -> Found:
        """Return the drives."""
        from gsmap_core.cli.convert_run import Job
        from gsmap_core.data.synthetic.drive import PREFIX, synthetic_specs

        specs = synthetic_specs(PREFIX + args.source.removeprefix(PREFIX))
        return Found([Job(spec.name, spec.num_frames, partial(_render, spec)) for spec in specs])


class OwnBags(Source):
    """Bags of one's own vehicle."""

    help = 'bags of your own vehicle, with annotations of the map as ground truth'
    description = (
        'Turns bags of your own vehicle into bags that train: images rectified, poses as TF, '
        'ground truth cut out of a GeoJSON file of the map.'
    )
    source_help = 'a bag or a folder of bags'

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare rig, annotations and range."""
        parser.add_argument(
            '--rig', metavar='FILE', help='calibration instead of CameraInfo and /tf_static'
        )
        parser.add_argument(
            '--annotations', metavar='FILE', help='GeoJSON of the map, metres of the map frame'
        )
        _add_range_argument(parser)

    def find(self, args: argparse.Namespace) -> Found:
        """Return the bags below the folder; those in the destination are results."""
        from gsmap_core.cli.convert_run import Job, Outcome
        from gsmap_core.data.annotations import read_annotations
        from gsmap_core.data.bag import open_bag
        from gsmap_core.data.loading import find_bags
        from gsmap_core.errors import DataError, GsmapError
        from gsmap_core.rig import load_rig

        rig = load_rig(args.rig) if args.rig else None
        extent, out = _range_of(args, False), Path(args.destination).resolve()
        jobs: dict[str, Job] = {}
        problems = []
        for path in find_bags(args.source):
            if out in path.resolve().parents:
                continue
            try:
                drive = open_bag(path, rig=rig)
                if args.annotations and drive.pose_frame is not None:
                    read_annotations(args.annotations, drive.pose_frame)
            except GsmapError as error:
                problems.append(Outcome(path.stem, 'failed', reason=str(error)))
                continue
            if drive.name in jobs:
                raise DataError(
                    f"'{path}' and another bag in '{args.source}' are both named '{drive.name}'; "
                    'expected one name per drive: convert them into different folders'
                )
            opener = partial(_open_own, path, rig, args.annotations, extent, not args.no_lidar)
            jobs[drive.name] = Job(drive.name, len(drive), opener)
        return Found(list(jobs.values()), problems)


class WithoutCameras:
    """A drive without calibration as a recording of its poses, its ground truth and its sweeps.

    Args:
        drive: the drive; its rig is never asked for.
    """

    rig = None

    def __init__(self, drive: Any) -> None:
        self._drive = drive
        self.problems = ('no calibration: poses, ground truth and sweeps alone', *drive.problems)

    def __getattr__(self, name: str) -> Any:
        """Take name, poses, map and metadata from the drive."""
        if name.startswith('_'):
            raise AttributeError(name)
        return getattr(self._drive, name)

    def __len__(self) -> int:
        """Return the number of sets."""
        return len(self._drive)

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the sets without images."""
        from gsmap_core.data.drives import RecordedFrame

        drive = self._drive
        for index in range(len(drive)):
            yield RecordedFrame(
                stamp_ns=drive.stamp_ns(index),
                images=(),
                ground_truth=drive.ground_truth(index),
                lidar_points=drive.lidar_points(index),
                sample_id=drive.sample_id(index),
            )


#: Every dataset by its name on the command line.
SOURCES: dict[str, Source] = {
    'nuscenes': NuScenes(),
    'av2': Argoverse2(),
    'synthetic': Synthetic(),
    'bag': OwnBags(),
    'nuscenes-json': KeyFrames(),
}


def _add_truth_arguments(parser: argparse.ArgumentParser, variants: Sequence[str]) -> None:
    parser.add_argument(
        '--variant',
        choices=tuple(variants),
        default='maptrv2',
        help='whose construction of the ground truth (maptrv2)',
    )
    _add_range_argument(parser)
    parser.add_argument('--centerline', action='store_true', help='also the centre lines of lanes')
    parser.add_argument(
        '--no-ground-truth', action='store_true', help='images, poses and calibration alone'
    )


def _add_range_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--range',
        type=float,
        nargs=2,
        metavar=('LENGTH', 'WIDTH'),
        help='extent of the ground truth ahead and across [m] (60 30)',
    )


def _range_of(args: argparse.Namespace, is_turned: bool) -> PerceptionRange | None:
    """Return the extent asked for; turned where the reference frame has y ahead."""
    from gsmap_core.structures import PerceptionRange

    if args.range is None:
        return None
    x, y = (side / 2 for side in (args.range[::-1] if is_turned else args.range))
    return PerceptionRange(-x, x, -y, y)


def _categories(args: argparse.Namespace) -> tuple[str, ...]:
    names = ('divider', 'ped_crossing', 'boundary')
    return (*names, 'centerline') if args.centerline else names


def _job_of(recording: Any) -> Job:
    from gsmap_core.cli.convert_run import Job

    return Job(recording.name, len(recording), partial(_given, recording))


def _given(recording: Any) -> Any:
    return recording


def _render(spec: DriveSpec) -> Any:
    from gsmap_core.data.synthetic.recording import SyntheticRecording

    return SyntheticRecording(spec)


def _open_own(
    path: Path,
    rig: CameraRig | None,
    annotations: str | None,
    extent: PerceptionRange | None,
    lidar: bool,
) -> Any:
    """Open a bag of one's own as a recording with ground truth."""
    from gsmap_core.data.annotated_bag import AnnotatedBag
    from gsmap_core.data.annotations import read_annotations
    from gsmap_core.data.bag import open_bag

    drive = open_bag(path, rig=rig)
    elements = None
    if annotations and drive.pose_frame is not None:
        elements = read_annotations(annotations, drive.pose_frame)
    return AnnotatedBag(drive, elements, perception_range=extent, lidar=lidar)
