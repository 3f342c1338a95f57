"""The RViz configuration against what the nodes really publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gsmap_ros.parameters import MAPPING_PARAMETERS


@pytest.fixture
def view(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / 'config' / 'gsmap.rviz').read_text(encoding='utf-8'))[
        'Visualization Manager'
    ]


def default(name: str) -> Any:
    return next(record.default for record in MAPPING_PARAMETERS if record.name == name)


class PublisherNotes:
    """Takes the place of a node and notes the publishers it is asked for."""

    def __init__(self) -> None:
        self.publishers: dict[str, tuple[str, Any]] = {}
        self.name = ''

    def create_lifecycle_publisher(
        self, message_type: Any, topic: str, qos: Any, **options: Any
    ) -> object:
        self.publishers[topic.replace('~', self.name)] = (message_type.__name__, qos)
        return object()


def noted_publishers() -> dict[str, tuple[str, Any]]:
    """Message type and QoS of what mapping node and map builder publish, by topic."""
    from gsmap_ros.map_builder_output import MapBuilderOutput
    from gsmap_ros.map_output import MapOutput

    notes = PublisherNotes()
    for notes.name, output in (('mapping', MapOutput), ('map_builder', MapBuilderOutput)):
        output(notes, {})  # type: ignore[arg-type]
    return notes.publishers


def test_frames_and_view(view: dict[str, Any]) -> None:
    assert view['Global Options']['Fixed Frame'] == default('map_frame')
    current = view['Views']['Current']
    assert current['Class'] == 'rviz_default_plugins/TopDownOrtho'
    assert current['Target Frame'] == default('base_frame')


def test_map_displays_equal_their_publishers(
    view: dict[str, Any], ros_environment: dict[str, str]
) -> None:
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy

    noted = noted_publishers()
    shown = [d for d in view['Displays'] if d['Class'].endswith('/MarkerArray')]
    assert shown
    for display in shown:
        topic = display['Topic']
        kind, qos = noted[topic['Value']]
        assert kind == 'MarkerArray'
        words = {
            'Reliability Policy': {
                ReliabilityPolicy.RELIABLE: 'Reliable',
                ReliabilityPolicy.BEST_EFFORT: 'Best Effort',
            }[qos.reliability],
            'Durability Policy': {
                DurabilityPolicy.VOLATILE: 'Volatile',
                DurabilityPolicy.SYSTEM_DEFAULT: 'Volatile',
                DurabilityPolicy.TRANSIENT_LOCAL: 'Transient Local',
            }[qos.durability],
            'History Policy': {HistoryPolicy.KEEP_LAST: 'Keep Last'}[qos.history],
            'Depth': qos.depth,
        }
        assert {key: topic[key] for key in words} == words


def test_every_marker_topic_is_shown(
    view: dict[str, Any], ros_environment: dict[str, str]
) -> None:
    published = {t for t, (kind, _) in noted_publishers().items() if kind == 'MarkerArray'}
    assert published <= {d['Topic']['Value'] for d in view['Displays'] if 'Topic' in d}


def test_image_display_accepts_every_camera(view: dict[str, Any]) -> None:
    """A best-effort display connects to reliable and best-effort publishers."""
    for display in view['Displays']:
        if display['Class'].endswith('/Image'):
            assert display['Topic']['Reliability Policy'] == 'Best Effort'
            assert not display['Topic']['Value'].startswith('/')


def test_names_are_unique_and_displays_have_topics(view: dict[str, Any]) -> None:
    names = [display['Name'] for display in view['Displays']]
    assert len(set(names)) == len(names)
    for display in view['Displays']:
        assert ('Topic' in display) == (display['Class'].split('/')[1] in ('MarkerArray', 'Image'))
