"""The parameters of the nodes: one record each; declaring, checking and tables derive from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsmap_core.errors import ConfigError
from gsmap_ros.map_builder_parameters import MAP_BUILDER_PARAMETERS
from gsmap_ros.parameter_record import FILES_DIRECTORY, ParameterRecord

if TYPE_CHECKING:
    from rclpy.node import Node

#: Parameters that rclpy declares itself.
_FOREIGN = ('use_sim_time', 'start_type_description_service')
_FOREIGN_PREFIXES = ('qos_overrides.',)
_SHIPPED_NAME = re.compile(r'[A-Za-z0-9_-]*')


MAPPING_PARAMETERS: tuple[ParameterRecord, ...] = (
    ParameterRecord(
        'cameras',
        [''],
        'Namespaces of the cameras, in order; empty: those of rig.file, else those found in the '
        'graph.',
    ),
    ParameterRecord(
        'rig.file',
        '',
        'Rig by name or YAML file: calibration that overrides CameraInfo and TF; empty: none.',
        is_path=True,
    ),
    ParameterRecord(
        'image_transport', 'compressed', 'Kind of image topic.', choices=('compressed', 'raw')
    ),
    ParameterRecord(
        'images_rectified',
        True,
        'True: subscribe image_rect and use P of CameraInfo; false: image_raw, undistorted here '
        'with K and D.',
    ),
    ParameterRecord(
        'image_reliability',
        'best_effort',
        'QoS reliability of the image and CameraInfo subscriptions.',
        choices=('best_effort', 'reliable'),
    ),
    ParameterRecord(
        'sync.reference', '', 'Camera whose stamp a set carries; empty: the first camera.'
    ),
    ParameterRecord(
        'sync.max_spread_s',
        0.06,
        'Greatest distance of an image from the reference stamp of its set [s].',
        0.0005,
        1.0,
    ),
    ParameterRecord(
        'sync.timeout_s',
        0.25,
        'How long an incomplete set waits for late images [s].',
        0.001,
        10.0,
    ),
    ParameterRecord(
        'sync.min_cameras',
        1,
        'Sets with fewer usable images are dropped; more than there are cameras means all.',
        1,
        64,
    ),
    ParameterRecord(
        'pose_source',
        'tf',
        'Where the ego pose comes from: TF, or the topic odom.',
        choices=('tf', 'odometry'),
    ),
    ParameterRecord('base_frame', 'base_link', 'Ego frame; the local map is expressed in it.'),
    ParameterRecord('map_frame', 'map', 'Global frame of the ego pose.'),
    ParameterRecord(
        'odom_frame', 'odom', 'Frame of the ego pose where there is no global localisation.'
    ),
    ParameterRecord(
        'tf.timeout_s', 0.3, 'How long a set waits for its transforms [s].', 0.0, 10.0
    ),
    ParameterRecord(
        'model.weights',
        '',
        'Checkpoint file or name of a shipped one; empty: the default one.',
        is_path=True,
    ),
    ParameterRecord('model.device', 'auto', 'Torch device: auto, cpu or cuda[:N].'),
    ParameterRecord(
        'model.precision', 'fp32', 'Arithmetic of the network.', choices=('fp32', 'bf16')
    ),
    ParameterRecord(
        'max_gap_s',
        2.0,
        'Memory and ids begin anew after so long without a mapped set [s].',
        0.1,
        3600.0,
    ),
    ParameterRecord(
        'max_pose_jump_m',
        10.0,
        'Memory and ids begin anew after a pose this much farther off than a vehicle moves [m].',
        0.1,
        10000.0,
    ),
    ParameterRecord(
        'identity.enabled',
        True,
        'Give elements ids that stay from map to map.',
        is_structural=False,
    ),
    ParameterRecord(
        'identity.max_distance_m',
        2.0,
        'Two lines this far apart have nothing in common; less than a lane is wide [m].',
        0.1,
        20.0,
    ),
    ParameterRecord(
        'identity.max_missed_frames',
        5,
        'Maps that an element may be missing in and still keep its id.',
        0,
        1000,
    ),
    ParameterRecord(
        'score_threshold',
        0.3,
        'Elements with a lower score are not published [0 to 1].',
        0.0,
        1.0,
        is_structural=False,
    ),
    ParameterRecord(
        'publish.markers', True, 'Publish markers for RViz as well.', is_structural=False
    ),
    ParameterRecord(
        'markers.line_width_m',
        0.15,
        'Line width of the markers [m].',
        0.01,
        5.0,
        is_structural=False,
    ),
    ParameterRecord(
        'markers.lifetime_s',
        0.5,
        'RViz removes markers that are not renewed for so long; 0: never [s].',
        0.0,
        3600.0,
        is_structural=False,
    ),
    ParameterRecord(
        'markers.ellipses',
        False,
        'Also draw the one-sigma ellipses of vertices that have a covariance.',
        is_structural=False,
    ),
    ParameterRecord('autostart', True, 'Configure and activate without being asked.'),
    FILES_DIRECTORY,
)

REPLAY_PARAMETERS: tuple[ParameterRecord, ...] = (
    ParameterRecord('bag', '', 'Bag to play: an MCAP or db3 file, or a rosbag2 folder.'),
    ParameterRecord('rate', 1.0, 'Speed of the replay; 1 is real time.', 0.01, 100.0),
    ParameterRecord('loop', False, 'Begin again at the end; the clock jumps back.'),
    ParameterRecord(
        'live',
        False,
        'Publish as if it happened now: stamps are moved to the system clock, and there is no '
        '/clock.',
    ),
    ParameterRecord(
        'clock_hz', 100.0, 'Rate of /clock in the time of the bag [1/s].', 1.0, 1000.0
    ),
    ParameterRecord('topics', [''], 'Topics to play; empty: all whose message type is installed.'),
    ParameterRecord(
        'wait_for_node',
        '',
        'Name of a lifecycle node that must be active before the replay begins; empty: do not '
        'wait.',
    ),
    ParameterRecord(
        'wait_for_topics',
        [''],
        'Topics that must have a subscriber before the replay begins (an output of the bag, e.g. '
        'for a recorder).',
    ),
    ParameterRecord(
        'wait_timeout_s', 60.0, 'How long to wait for nodes and subscribers [s].', 0.0, 3600.0
    ),
    ParameterRecord(
        'drain_s', 1.0, 'How long /clock goes on after the last message [s].', 0.0, 60.0
    ),
)

RECORD_PARAMETERS: tuple[ParameterRecord, ...] = (
    ParameterRecord('output', '', 'Bag file to write (.mcap); must not exist.'),
    ParameterRecord('topics', [''], 'Topics to record.'),
    ParameterRecord(
        'wait_timeout_s', 60.0, 'How long to wait for a topic to appear [s].', 0.0, 3600.0
    ),
)

NODE_PARAMETERS: Mapping[str, tuple[ParameterRecord, ...]] = {
    'mapping_node': MAPPING_PARAMETERS,
    'map_builder_node': MAP_BUILDER_PARAMETERS,
    'replay_node': REPLAY_PARAMETERS,
    'record_node': RECORD_PARAMETERS,
}


def texts(value: Sequence[str]) -> tuple[str, ...]:
    """Return the entries of a string array parameter; `['']` is an empty one."""
    return tuple(item for item in value if item)


class NodeParameters:
    """Declares the records on a node and keeps their checked values.

    Args:
        node: made with `automatically_declare_parameters_from_overrides=True`, so that the
            overrides of a user are seen whatever their type and name.
        records: the node's parameters.

    A wrong override does not stop the node here: `problems` tells it at configure.
    """

    def __init__(self, node: Node, records: tuple[ParameterRecord, ...]) -> None:
        from rcl_interfaces.msg import SetParametersResult

        self._records = {record.name: record for record in records}
        self._result_type = SetParametersResult
        self.problems: list[str] = []
        self.is_configured = False
        given = set(node.get_parameters_by_prefix(''))
        self.unknown = sorted(
            name
            for name in given
            if name not in self._records
            and name not in _FOREIGN
            and not name.startswith(_FOREIGN_PREFIXES)
        )
        self._values: dict[str, Any] = {}
        for record in records:
            self._values[record.name] = self._declare(node, record, record.name in given)
        self._directories = self._allowed_directories()
        node.add_on_set_parameters_callback(self._on_set)

    def _allowed_directories(self) -> tuple[Path, ...]:
        """Return where files may lie that are named later; links are followed."""
        directory = self._values.get(FILES_DIRECTORY.name, '')
        if directory:
            return (Path(directory).resolve(),)
        return tuple(
            Path(self._values[name]).resolve().parent
            for name, record in self._records.items()
            if record.is_path and not _SHIPPED_NAME.fullmatch(self._values[name])
        )

    def _check_path(self, record: ParameterRecord, value: str) -> None:
        if not record.is_path or _SHIPPED_NAME.fullmatch(value):
            return
        path = Path(value).resolve()
        if not any(path.is_relative_to(directory) for directory in self._directories):
            allowed = ', '.join(f"'{directory}'" for directory in self._directories) or 'none'
            raise ConfigError(
                f"parameter '{record.name}' is {value!r}; while the node runs, expected the name "
                f'of a shipped file or a file in {FILES_DIRECTORY.name} ({allowed})'
            )

    def _declare(self, node: Node, record: ParameterRecord, is_given: bool) -> Any:
        value: Any = record.default
        if is_given:
            override = node.get_parameter(record.name).value
            if type(record.default) is list and override is not None and not len(override):
                override = ['']
            override = list(override) if isinstance(override, tuple) else override
            node.undeclare_parameter(record.name)
            try:
                record.check(override)
                value = override
            except ConfigError as error:
                self.problems.append(str(error))
        node.declare_parameter(record.name, value, descriptor_of(record), ignore_override=True)
        return value

    def __getitem__(self, name: str) -> Any:
        """Return the current value of a parameter."""
        return self._values[name]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the non-empty entries of a string array."""
        return texts(self._values[name])

    def require_valid(self) -> None:
        """Refuse to start with wrong overrides.

        Raises:
            ConfigError: with one sentence for each.
        """
        if self.problems:
            raise ConfigError('; '.join(self.problems))

    def _on_set(self, parameters: list[Any]) -> Any:
        """Check all values first and apply them afterwards: all or nothing."""
        accepted: dict[str, Any] = {}
        for parameter in parameters:
            record = self._records.get(parameter.name)
            if record is None:
                continue
            try:
                record.check(parameter.value)
                self._check_path(record, parameter.value)
            except ConfigError as error:
                return self._result_type(successful=False, reason=str(error))
            if record.is_fixed:
                return self._result_type(
                    successful=False,
                    reason=f"parameter '{record.name}' is decided when the node starts (now "
                    f'{self._values[record.name]!r})',
                )
            if record.is_structural and self.is_configured:
                return self._result_type(
                    successful=False,
                    reason=f"parameter '{record.name}' cannot change while the node is configured "
                    f'(now {self._values[record.name]!r}); deactivate and clean up first',
                )
            accepted[record.name] = parameter.value
        self._values.update(accepted)
        self.problems = [
            text for text in self.problems if not any(f"'{name}'" in text for name in accepted)
        ]
        return self._result_type(successful=True)


def descriptor_of(record: ParameterRecord) -> Any:
    """Build the `ParameterDescriptor` of a record."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    # The type is checked here: rclpy's own refusal names neither parameter nor value.
    descriptor = ParameterDescriptor(description=record.description, dynamic_typing=True)
    constraints = []
    if record.choices:
        constraints.append(f'one of {record.allowed}')
    if record.is_fixed:
        constraints.append('decided when the node starts')
    elif record.is_structural:
        constraints.append('changes only before configure')
    descriptor.additional_constraints = '; '.join(constraints)
    if record.minimum is not None and record.maximum is not None:
        if isinstance(record.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=record.minimum, to_value=record.maximum)
            ]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(record.minimum), to_value=int(record.maximum))
            ]
    return descriptor


def parameters_markdown(node_name: str) -> str:
    """Return the parameter table of a node for the README.

    Args:
        node_name: `mapping_node`, `map_builder_node`, `replay_node` or `record_node`.
    """
    lines = [
        '| Parameter | Type | Default | Allowed | At run time | Meaning |',
        '|---|---|---|---|---|---|',
    ]
    for record in NODE_PARAMETERS[node_name]:
        default = (
            ', '.join(texts(record.default))
            if isinstance(record.default, list)
            else record.default
        )
        if isinstance(default, bool):
            default = str(default).lower()
        shown = f'`{default}`' if default != '' else ''
        lines.append(
            f'| `{record.name}` | {record.type_name} | {shown} | {record.allowed} | '
            f'{"" if record.is_structural else "yes"} | {record.description} |'
        )
    return '\n'.join(lines) + '\n'
