"""What the launch files do with their arguments: strings to values, files checked, RViz patched.

Pure Python, so that it is tested without `launch`. Launch arguments are strings, always.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import yaml

from gsmap_core.errors import ConfigError
from gsmap_core.rig import load_rig
from gsmap_ros.camera_input import image_topic

_IMAGE_DISPLAY = 'rviz_default_plugins/Image'
_TRUE = ('true', '1', 'yes', 'on')
_FALSE = ('false', '0', 'no', 'off')


def to_bool(name: str, value: str) -> bool:
    """Return the truth value of a launch argument.

    Raises:
        ConfigError: it is neither true nor false; the message names the argument.
    """
    text = value.strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"launch argument {name}:={value!r}; expected 'true' or 'false'")


def to_positive_float(name: str, value: str) -> float:
    """Return the number in a launch argument.

    Raises:
        ConfigError: it is not a number above 0.
    """
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float('inf'):
        raise ConfigError(f'launch argument {name}:={value!r}; expected a number above 0')
    return number


def existing_path(name: str, value: str) -> str:
    """Return the absolute path in a launch argument.

    Raises:
        ConfigError: nothing is there.
    """
    path = Path(value).expanduser()
    if not path.exists():
        raise ConfigError(
            f"launch argument {name}:='{value}' does not exist; give an existing path"
        )
    return str(path.resolve())


def absolute_name(namespace: str, name: str) -> str:
    """Return the full name of a node or topic in a launch namespace, possibly empty."""
    return '/'.join(['', *(part for part in namespace.split('/') if part), name])


def shown_image_topics(params_file: Path | str, rig: str = '') -> dict[str, str]:
    """Return the image topics that the mapping node will subscribe, as far as that is known.

    Args:
        params_file: its parameter file.
        rig: rig file or name of the launch argument; it wins over the parameter file's.

    Returns:
        Camera -> relative topic; empty where the cameras are only found in the graph.

    Raises:
        ConfigError: the rig is not there.
    """
    content = yaml.safe_load(Path(params_file).read_text(encoding='utf-8')) or {}
    values: dict[str, Any] = {}
    for name, entry in content.items():
        if str(name).rpartition('/')[2] in ('**', '*', 'mapping'):
            values |= entry.get('ros__parameters') or {}
    file = rig or values.get('rig.file', '')
    cameras = [name for name in values.get('cameras', []) if name]
    if not cameras and file:
        cameras = list(load_rig(file).names)
    transport = values.get('image_transport', 'compressed')
    is_rectified = values.get('images_rectified', True)
    return {name: image_topic(name, transport, is_rectified) for name in cameras}


def _with_cameras(displays: list[Any], image_topics: dict[str, str]) -> list[Any]:
    """Return the displays with one image panel per camera instead of those in the file."""
    panels = [display for display in displays if display.get('Class') == _IMAGE_DISPLAY]
    if not panels or not image_topics:
        return displays
    others = [display for display in displays if display not in panels]
    for camera, topic in image_topics.items():
        panel = copy.deepcopy(panels[0])
        panel['Name'] = f'Camera {camera.removeprefix("cam_").replace("_", " ")}'
        panel['Topic']['Value'] = topic
        others.append(panel)
    return others


def _patch(node: Any, namespace: str, fixed_frame: str, base_frame: str) -> Any:
    if isinstance(node, dict):
        patched = {
            key: _patch(item, namespace, fixed_frame, base_frame) for key, item in node.items()
        }
        topic = patched.get('Topic')
        if isinstance(topic, dict) and not str(topic.get('Value', '/')).startswith('/'):
            topic['Value'] = absolute_name(namespace, topic['Value'])
        if 'Fixed Frame' in patched:
            patched['Fixed Frame'] = fixed_frame
        if 'Target Frame' in patched:
            patched['Target Frame'] = base_frame
        return patched
    if isinstance(node, list):
        return [_patch(item, namespace, fixed_frame, base_frame) for item in node]
    return node


def patched_rviz_config(
    source: Path | str,
    namespace: str,
    fixed_frame: str = 'map',
    base_frame: str = 'base_link',
    image_topics: dict[str, str] | None = None,
) -> Path:
    """Write a copy of an RViz configuration for a namespace and frames.

    Args:
        source: RViz configuration; its relative topics belong under the namespace.
        namespace: launch namespace, possibly empty.
        fixed_frame: frame the map is shown in.
        base_frame: frame the view follows.
        image_topics: by camera: one panel for each instead of those in the file; None or empty:
            the file's.

    Returns:
        A temporary file; RViz reads it after this process may have gone on.
    """
    content = yaml.safe_load(Path(source).read_text(encoding='utf-8'))
    manager = content.get('Visualization Manager', {})
    if image_topics and 'Displays' in manager:
        manager['Displays'] = _with_cameras(manager['Displays'], image_topics)
    patched = _patch(content, namespace, fixed_frame, base_frame)
    with tempfile.NamedTemporaryFile(
        'w', prefix='gsmap_', suffix='.rviz', delete=False, encoding='utf-8'
    ) as file:
        yaml.safe_dump(patched, file, sort_keys=False)
    return Path(file.name)
