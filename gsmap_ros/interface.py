"""What the nodes say and hear: one record per topic, service and diagnostic status.

Tables in the documentation and the security policy are generated from these records; tests compare
them with running nodes. Names are relative (`~/` private) as in the code; `<camera>` stands for
the namespace of each camera.
"""

from __future__ import annotations

from collections.abc import Mapping

from gsmap_ros.interface_record import (
    CLOCK,
    DIAGNOSTICS,
    POSE,
    NodeInterface,
    ServiceRecord,
    StatusRecord,
    TopicRecord,
)
from gsmap_ros.map_builder_interface import MAP_BUILDER_INTERFACE

_IMAGE = 'sensor_msgs/msg/Image'
_COMPRESSED = 'sensor_msgs/msg/CompressedImage'
_SENSOR_QOS = '`image_reliability`, volatile, 5'
_OUTPUT_QOS = 'reliable, volatile, 5'
MAPPING_INTERFACE = NodeInterface(
    topics=(
        TopicRecord(
            '<camera>/image_rect/compressed',
            _COMPRESSED,
            False,
            _SENSOR_QOS,
            'Rectified pictures, JPEG or PNG.',
            (('image_transport', 'compressed'), ('images_rectified', 'true')),
        ),
        TopicRecord(
            '<camera>/image_rect',
            _IMAGE,
            False,
            _SENSOR_QOS,
            'Rectified pictures: rgb8, bgr8, rgba8, bgra8, mono8 or 8UC3 (taken as BGR).',
            (('image_transport', 'raw'), ('images_rectified', 'true')),
        ),
        TopicRecord(
            '<camera>/image_raw/compressed',
            _COMPRESSED,
            False,
            _SENSOR_QOS,
            'Pictures as taken; undistorted in the node.',
            (('image_transport', 'compressed'), ('images_rectified', 'false')),
        ),
        TopicRecord(
            '<camera>/image_raw',
            _IMAGE,
            False,
            _SENSOR_QOS,
            'Pictures as taken; undistorted in the node.',
            (('image_transport', 'raw'), ('images_rectified', 'false')),
        ),
        TopicRecord(
            '<camera>/camera_info',
            'sensor_msgs/msg/CameraInfo',
            False,
            _SENSOR_QOS,
            'Calibration; may come late and may change.',
        ),
        TopicRecord(
            '/tf',
            'tf2_msgs/msg/TFMessage',
            False,
            'reliable, volatile, 100',
            'Ego pose: `map_frame` (or `odom_frame`) to `base_frame`.',
        ),
        TopicRecord(
            '/tf_static',
            'tf2_msgs/msg/TFMessage',
            False,
            'reliable, transient local, 100',
            'Places of the cameras: `base_frame` to their optical frames.',
        ),
        TopicRecord(
            'odom',
            'nav_msgs/msg/Odometry',
            False,
            'reliable, volatile, 100',
            'Ego pose, `odom_frame` to `base_frame`.',
            (('pose_source', 'odometry'),),
        ),
        CLOCK,
        TopicRecord(
            '~/local_map',
            'gsmap_ros/msg/MapElementArray',
            True,
            _OUTPUT_QOS,
            'Elements of one camera set, in `base_frame` at the stamp of the reference camera.',
        ),
        TopicRecord(
            '~/local_map_markers',
            'visualization_msgs/msg/MarkerArray',
            True,
            _OUTPUT_QOS,
            'The same for RViz; empty of markers unless `publish.markers`.',
        ),
        DIAGNOSTICS,
    ),
    services=(
        ServiceRecord(
            '~/reset',
            'std_srvs/srv/Trigger',
            'Drop pending sets, memory and ids.',
        ),
    ),
    statuses=(
        StatusRecord(
            'camera <camera>',
            'STALE: no image yet. ERROR: no usable calibration. WARN: silent for more than 2 s, '
            'or its last image was unusable.',
            {
                'topic': 'image topic',
                'images': 'received since configure',
                'rate_hz': 'mean rate of the last 200 [1/s]',
                'age_s': 'since the last one [s]',
                'calibrated': 'whether there is a usable calibration',
                'calibration': 'size it is for [px]',
                'unusable_images': 'corrupt, uncalibrated or of a wrong size',
                'last_error': 'why the last image was unusable; empty once one is usable',
            },
        ),
        StatusRecord(
            'camera sets',
            'STALE: not configured, or no set yet. ERROR: configuring failed, or sets come and '
            'none is mapped. WARN: some were dropped since the last array.',
            {
                'sets_received': 'sets that left the synchroniser',
                'sets_partial': 'of these, without some camera',
                'sets_mapped': 'maps published',
                'sets_dropped': 'sets without a map',
                'sets_in_flight': 'received - mapped - dropped',
                'sets_dropped.<reason>?': 'by reason, see below',
                'latency_p50_ms?': 'from the closing of a set to its map, median [ms]',
                'latency_p95_ms?': 'the same, 95th percentile [ms]',
                'rate_hz': 'maps a second [1/s]',
                'sync_complete?': 'sets with every camera, since configure',
                'sync_partial?': 'sets without some camera, since configure',
                'images_late?': 'images whose set had left',
                'images_out_of_order?': 'images older than the one before of the same camera',
                'images_duplicate?': 'images with a stamp that the camera had already sent',
                'images_without_stamp?': 'images with stamp 0',
                'clock_jumps?': 'times that image stamps went back',
                'spread_ms?': 'first to last image of the last set [ms]',
                'last_error?': 'why the last dropped set was dropped; empty after a map',
            },
        ),
        POSE,
        StatusRecord(
            'inference',
            'STALE: nothing mapped yet.',
            {
                'rate_hz': 'maps a second [1/s]',
                'latency_p50_ms': 'as above [ms]',
                'latency_p95_ms': 'as above [ms]',
                'device': 'torch device',
                'precision': 'arithmetic',
                'torch': 'version',
            },
        ),
        StatusRecord(
            'timing',
            'STALE: nothing mapped yet. The stages are explained under *Latency*.',
            {
                'sets': 'over which percentiles are taken',
                '<stage>_p50_ms?': 'of each stage, `overhead` and `total`, median [ms]',
                '<stage>_p95_ms?': 'the same, 95th percentile [ms]',
            },
        ),
        StatusRecord(
            'memory',
            'Always OK; tells what is remembered and when it was last dropped.',
            {
                'memory': 'kind of temporal model; `none`: every set is mapped alone',
                'frames': 'since the last reset',
                'key_frames': 'since the last reset',
                'travelled_m': 'since the last reset [m]',
                'resets': 'since configure',
                'last_reset': 'why, see above',
                'last_reset_stamp_s': 'stamp of the set before which it happened [s]',
                'pending_reset': 'why the memory will be dropped before the next set',
                'ids': 'on or off',
                'ids_given': 'highest id so far',
                'elements_followed': 'elements whose id is kept',
            },
        ),
        StatusRecord(
            'output',
            'Always OK; tells who listens.',
            {
                'map_subscribers': 'of `~/local_map`',
                'marker_subscribers': 'of `~/local_map_markers`',
                'maps_unheard': 'maps published while nobody was subscribed',
            },
        ),
        StatusRecord(
            'weights',
            'Always OK; tells what is loaded.',
            {
                'model': 'name of its configuration',
                'weights': 'file name',
                'sha256': 'first 16 digits',
                'device': 'torch device',
                'precision': 'arithmetic',
                'torch': 'version',
            },
        ),
    ),
)

REPLAY_INTERFACE = NodeInterface(
    topics=(
        TopicRecord(
            '/clock', 'rosgraph_msgs/msg/Clock', True, 'reliable, volatile, 10', 'Bag time.'
        ),
        TopicRecord('<topic>', '<type>', True, 'as recorded', 'Every topic of the bag.'),
    ),
)

RECORD_INTERFACE = NodeInterface(
    topics=(
        TopicRecord('<topic>', '<type>', False, "the publishers'", 'Every topic of `topics`.'),
    ),
)

INTERFACES: Mapping[str, NodeInterface] = {
    'mapping_node': MAPPING_INTERFACE,
    'map_builder_node': MAP_BUILDER_INTERFACE,
    'replay_node': REPLAY_INTERFACE,
    'record_node': RECORD_INTERFACE,
}

#: What every node publishes and offers by itself, and what lifecycle nodes add.
STANDARD_TOPICS = ('/rosout', '/parameter_events')
STANDARD_SERVICES = (
    '~/describe_parameters',
    '~/get_parameter_types',
    '~/get_parameters',
    '~/list_parameters',
    '~/set_parameters',
    '~/set_parameters_atomically',
)
LIFECYCLE_TOPICS = ('~/transition_event',)
LIFECYCLE_SERVICES = (
    '~/change_state',
    '~/get_available_states',
    '~/get_available_transitions',
    '~/get_state',
    '~/get_transition_graph',
)


def resolve(name: str, node: str, namespace: str = '/', camera: str = '') -> str:
    """Return the full name of a topic or service.

    Args:
        name: as in the records.
        node: name of the node.
        namespace: of the node.
        camera: what `<camera>` stands for.
    """
    name = name.replace('<camera>', camera)
    if name.startswith('/'):
        return name
    base = namespace.rstrip('/')
    if name.startswith('~/'):
        return f'{base}/{node}/{name.removeprefix("~/")}'
    return f'{base}/{name}'


def is_wanted(record: TopicRecord, values: Mapping[str, str]) -> bool:
    """Tell whether a node with these parameter values has a topic."""
    return all(values.get(name) == value for name, value in record.when)


def interface_markdown(node_name: str) -> str:
    """Return the tables of a node for the documentation.

    Args:
        node_name: key of `INTERFACES`.
    """
    interface = INTERFACES[node_name]
    lines = [
        '| Topic | Type | Direction | QoS | Content |',
        '|---|---|---|---|---|',
    ]
    for topic in interface.topics:
        direction = 'out' if topic.is_published else 'in'
        when = ', '.join(f'`{name}: {value}`' for name, value in topic.when)
        content = topic.content + (f' With {when}.' if when else '')
        lines.append(
            f'| `{topic.name}` | `{_short(topic.type)}` | {direction} | {topic.qos} | {content} |'
        )
    if interface.services:
        lines += ['', '| Service | Type | What it does |', '|---|---|---|']
        lines += [f'| `{s.name}` | `{_short(s.type)}` | {s.content} |' for s in interface.services]
    if interface.statuses:
        lines += ['', '| Diagnostic status | Level and text | Values |', '|---|---|---|']
        for status in interface.statuses:
            values = '<br>'.join(f'`{k.rstrip("?")}` {v}' for k, v in status.values.items())
            lines.append(f'| `{status.name}` | {status.content} | {values} |')
    return '\n'.join(lines) + '\n'


def _short(type_name: str) -> str:
    return type_name.replace('/msg/', '/').replace('/srv/', '/')
