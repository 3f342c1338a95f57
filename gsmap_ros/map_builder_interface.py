"""What the map builder says and hears; see `interface.py`."""

from __future__ import annotations

from gsmap_ros.interface_record import (
    CLOCK,
    DIAGNOSTICS,
    POSE,
    NodeInterface,
    ServiceRecord,
    StatusRecord,
    TopicRecord,
)

_LATCHED = 'reliable, transient local, 1'
_TRIGGER = 'std_srvs/srv/Trigger'

MAP_BUILDER_INTERFACE = NodeInterface(
    topics=(
        TopicRecord(
            'mapping/local_map',
            'gsmap_ros/msg/MapElementArray',
            False,
            'reliable, volatile, 10',
            'Local maps to fuse.',
        ),
        TopicRecord(
            '/tf',
            'tf2_msgs/msg/TFMessage',
            False,
            'reliable, volatile, 100',
            'Ego pose: `map_frame` to `base_frame`.',
        ),
        TopicRecord(
            '/tf_static',
            'tf2_msgs/msg/TFMessage',
            False,
            'reliable, transient local, 100',
            'Parts of the chain that stand still.',
        ),
        CLOCK,
        TopicRecord(
            '~/map',
            'gsmap_ros/msg/VectorMap',
            True,
            _LATCHED,
            'The fused map in `map_frame`: the tiles in memory.',
        ),
        TopicRecord(
            '~/map_markers',
            'visualization_msgs/msg/MarkerArray',
            True,
            _LATCHED,
            'The same for RViz, all of it in every array.',
        ),
        DIAGNOSTICS,
    ),
    services=(
        ServiceRecord('~/reset', _TRIGGER, 'Empty the map; saved files stay.'),
        ServiceRecord('~/save_map', _TRIGGER, 'Write `map.file`; the answer names it.'),
        ServiceRecord('~/load_map', _TRIGGER, 'Read `map.file` in the place of everything.'),
    ),
    statuses=(
        StatusRecord(
            'local maps',
            'STALE: not configured, or no local map yet. ERROR: configuring failed, or local maps '
            'come and none is fused. WARN: some were dropped since the last array.',
            {
                'maps_received': 'local maps that came',
                'maps_fused': 'of these, in the map',
                'maps_dropped': 'of these, not',
                'maps_in_flight': 'received - fused - dropped',
                'maps_dropped.<reason>?': 'by reason',
                'latency_p50_ms?': 'from arrival to fused, median [ms]',
                'latency_p95_ms?': 'the same, 95th percentile [ms]',
                'rate_hz': 'fused maps a second [1/s]',
                'elements_refused': 'elements that were none',
                'last_error': 'why the last dropped one was dropped; empty after a fused one',
            },
        ),
        POSE,
        StatusRecord(
            'map',
            'STALE: nothing published yet. ERROR: the folder cannot be written.',
            {
                'elements?': 'confirmed, in memory',
                'candidates?': 'not confirmed yet',
                'vertices?': 'of the elements in memory',
                'tiles_in_memory?': 'around the vehicle',
                'tiles_on_disk?': 'all',
                'revision': 'published changes since the last reset',
                'submaps': 'begun; one more after each clock jump',
                'last_change_s': 'since the last published map [s]',
                'directory': 'of the map',
            },
        ),
        StatusRecord('calibration', 'Always OK; tells which calibration is applied.', {}),
    ),
)
