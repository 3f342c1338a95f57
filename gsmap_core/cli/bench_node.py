"""`gsmap bench node`: where the time from the stamp of an image to the published map goes.

A synthetic vehicle with the cameras of a rig drives now: its images are published by one process
with stamps of the system clock and mapped by the node in another. What the node says about its
stages is compared with the plain decoding of the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.data.drives import PoseSample, RecordedFrame
    from gsmap_core.structures import CameraRig, VectorMap

#: Camera sets that are rendered; they are shown in turn.
_NUM_RENDERED = 2
#: How often the plain decoding is timed, before and after the nodes run.
_DECODE_REPEATS = 15
_START_S = 300.0
#: Synthetic drives have so many camera sets a second; slower ones are played in slow motion.
_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 2.0, 12.0
_DRAIN_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument('--weights', default='', metavar='FILE', help='checkpoint (shipped one)')
    parser.add_argument('--sets', type=int, default=60, metavar='N', help='camera sets (60)')
    parser.add_argument('--rate-hz', type=float, default=2.0, help='camera sets per second (2)')
    parser.add_argument('--width', type=int, default=1600, metavar='PX', help='of an image (1600)')
    parser.add_argument(
        '--turn-s',
        type=float,
        default=0.05,
        help='time in which all cameras are exposed one after the other; 0: at once (0.05)',
    )
    parser.add_argument(
        '--rig', default='nuscenes_like', metavar='NAME', help='rig by name or YAML file'
    )
    parser.add_argument('--device', default='auto', help='auto, cpu or cuda[:N] (auto)')
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Drive, measure, compare."""
    import json
    import tempfile

    from gsmap_core.errors import ConfigError
    from gsmap_core.runtime.predictor import resolve_weights

    if args.sets < 3:
        raise ConfigError(f'--sets {args.sets}; expected at least 3')
    if not 0.1 <= args.rate_hz <= _HIGHEST_RATE_HZ:
        raise ConfigError(f'--rate-hz {args.rate_hz}; expected 0.1 to {_HIGHEST_RATE_HZ:g}')
    weights = resolve_weights(args.weights)
    with tempfile.TemporaryDirectory(prefix='gsmap_bench_') as folder:
        result = measure(args, weights, Path(folder))
    print(json.dumps(result) if args.json else as_text(result))
    return 0


class ShownInTurn:
    """A drive whose first sets are rendered once and then shown again and again.

    Args:
        recording: the whole drive.
    """

    def __init__(self, recording: Any) -> None:
        self._recording = recording
        self.rendered: list[RecordedFrame] = [
            recording.frame(index) for index in range(min(_NUM_RENDERED, len(recording)))
        ]

    def __len__(self) -> int:
        """Return the number of camera sets."""
        return len(self._recording)

    @property
    def name(self) -> str:
        """Name of the drive."""
        return str(self._recording.name)

    @property
    def rig(self) -> CameraRig:
        """Calibration."""
        rig: CameraRig = self._recording.rig
        return rig

    @property
    def poses(self) -> list[PoseSample]:
        """Every pose."""
        poses: list[PoseSample] = self._recording.poses
        return poses

    @property
    def global_map(self) -> VectorMap | None:
        """Left out: nothing is scored."""
        return None

    @property
    def metadata(self) -> dict[str, str]:
        """As the drive's."""
        return dict(self._recording.metadata)

    def frames(self) -> Iterator[RecordedFrame]:
        """Yield the sets with their own stamps."""
        for index in range(len(self._recording)):
            shown = self.rendered[index % len(self.rendered)]
            stamps = self._recording.camera_stamps_ns[index]
            yield replace(
                shown,
                stamp_ns=self._recording.frame_stamp_ns(index),
                images=tuple(
                    replace(image, stamp_ns=stamp)
                    for image, stamp in zip(shown.images, stamps, strict=True)
                ),
                ground_truth=None,
                sample_id='',
            )


def measure(args: argparse.Namespace, weights: Path, folder: Path) -> dict[str, Any]:
    """Return what the node says about its stages, and the plain decoding of the same images.

    Args:
        args: options of the command.
        weights: checkpoint.
        folder: for the bag, the recording and the logs.

    Raises:
        NodeProcessError: a node failed; the message ends with its log.
        DataError: the node mapped nothing.
    """
    import os

    from gsmap_core.cli.bench_measure import describe_device
    from gsmap_core.data.bag import write_bag
    from gsmap_core.data.synthetic.recording import DriveSpec, SyntheticRecording
    from gsmap_core.errors import DataError
    from gsmap_core.runtime.predictor import resolve_device

    speed = min(1.0, args.rate_hz / _LOWEST_RATE_HZ)
    spec = DriveSpec(
        town_seed=0,
        drive_seed=0,
        rig=args.rig,
        duration_s=speed * args.sets / args.rate_hz,
        rate_hz=args.rate_hz / speed,
        image_width_px=args.width,
        trigger_turn_s=speed * args.turn_s,
    )
    drive = ShownInTurn(SyntheticRecording(spec))
    write_bag(drive, folder / 'drive', overwrite=True)
    jpegs = [[image.data for image in frame.images] for frame in drive.rendered]
    decoding_s = plain_decoding_s(jpegs)
    timing, counters = play(args, weights, folder, drive.rig.names, speed)
    decoding_s += plain_decoding_s(jpegs)
    if not timing:
        raise DataError(f'the node mapped nothing: {counters}')
    values = sorted(decoding_s)
    decoding_ms = 1e3 * values[len(values) // 2]
    camera = drive.rig.cameras[0]
    return {
        **describe_device(resolve_device(args.device)),
        'cores': len(os.sched_getaffinity(0)),
        'load_average': round(os.getloadavg()[0], 2),
        'weights': weights.name,
        'images': [len(drive.rig), camera.width_px, camera.height_px],
        'image_kb': round(sum(map(len, jpegs[0])) / len(jpegs[0]) / 1e3, 1),
        'sets_published': len(drive),
        'sets_mapped': int(counters['sets_mapped']),
        'sets_dropped': int(counters['sets_dropped']),
        'stages_ms': timing,
        'plain_decoding_ms': decoding_ms,
        'overhead_to_decoding': timing['overhead']['p50'] / decoding_ms,
    }


def plain_decoding_s(jpegs: Sequence[Sequence[bytes]]) -> list[float]:
    """Time the decoding of whole sets at full size, one image after the other [s]."""
    import time

    from gsmap_core.images import decode_jpeg

    times = []
    for index in range(_DECODE_REPEATS + 1):
        start_s = time.perf_counter()
        for data in jpegs[index % len(jpegs)]:
            decode_jpeg(data, 'bench')
        times.append(time.perf_counter() - start_s)
    return times[1:]


def play(
    args: argparse.Namespace, weights: Path, folder: Path, cameras: Sequence[str], speed: float
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Run the nodes; return the stages by name and percentile, and the counters of the sets."""
    import time

    from gsmap_core.cli.demo_steps import demo_environment
    from gsmap_core.cli.node_processes import NodeGroup, NodeProcess

    environment = demo_environment()
    recorded, topics = folder / 'diagnostics.mcap', ['/diagnostics', '/mapping/local_map']
    parameters: dict[str, dict[str, Any]] = {
        'record': {'output': str(recorded), 'topics': topics, 'wait_timeout_s': _START_S},
        'mapping': {
            'cameras': list(cameras),
            'image_reliability': 'reliable',
            'model.weights': str(weights.resolve()),
            'model.device': args.device,
        },
        'replay': {
            'bag': str(folder / 'drive'),
            'live': True,
            'rate': speed,
            'wait_for_node': '/mapping',
            'wait_for_topics': [f'/{name}/image_rect/compressed' for name in cameras],
            'wait_timeout_s': _START_S,
            'drain_s': _DRAIN_S,
        },
    }
    with NodeGroup() as group:
        nodes = {
            name: group.start(NodeProcess(name, values, environment, folder))
            for name, values in parameters.items()
        }

        def look() -> None:
            # A lifecycle node that cannot be configured stays up and says so.
            if 'configure failed' in nodes['mapping'].log_text():
                raise nodes['mapping'].failure('could not be configured')

        duration_s = args.sets / args.rate_hz
        group.wait_for_end(nodes['replay'], 2 * _START_S + duration_s, poll=look)
        # In this order, so that the recorder gets the mapping node's last numbers.
        group.stop(nodes['mapping'])
        time.sleep(0.5)
        group.stop(nodes['record'])
    return read_timing(recorded)


def read_timing(
    recorded: Path,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return stages and counters of the last diagnostics in a recording."""
    from gsmap_core.data.bag import BagReader

    statuses: dict[str, dict[str, str]] = {}
    bag = BagReader(recorded)
    for raw in bag.messages(['/diagnostics']):
        for status in bag.deserialise(raw.data, '/diagnostics').status:
            name = status.name.removeprefix('mapping: ')
            statuses[name] = {item.key: item.value for item in status.values}
    bag.close()
    stages: dict[str, dict[str, float]] = {}
    for key, value in statuses.get('timing', {}).items():
        parts = key.rsplit('_', 2)
        if len(parts) == 3 and parts[2] == 'ms':
            stages.setdefault(parts[0], {})[parts[1]] = float(value)
    return stages, statuses.get('camera sets', {})


def as_text(result: dict[str, Any]) -> str:
    """Return the result as a table for people."""
    count, width, height = result['images']
    lines = [
        f'{result["device"]}, {result["cores"]} cores (load {result["load_average"]}), torch '
        f'{result["torch"]}; {result["weights"]}, {count} images of {width} x {height} px, '
        f'{result["image_kb"]:.0f} kB each; {result["sets_mapped"]} of '
        f'{result["sets_published"]} sets mapped',
        f'{"stage":<14}{"median":>10}{"p95":>10}   [ms]',
    ]
    for name, item in result['stages_ms'].items():
        lines.append(f'{name:<14}{item["p50"]:>10.1f}{item["p95"]:>10.1f}')
    if result['sets_dropped']:
        lines.append(
            f'{result["sets_dropped"]} sets were dropped: the node does not keep up, and the time '
            'that sets wait for it (queue) is that of the network; lower --rate-hz'
        )
    lines.append(
        f'overhead (all but model and stagger) is {result["overhead_to_decoding"]:.2f} times the '
        f'plain decoding of the same images ({result["plain_decoding_ms"]:.1f} ms)'
    )
    return '\n'.join(lines)
