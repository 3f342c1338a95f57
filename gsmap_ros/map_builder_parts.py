"""What the map builder node holds between configure and cleanup, made from its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsmap_core.calibration import Calibration, read_calibration
from gsmap_core.errors import ConfigError, DataError
from gsmap_core.geometry.geodesy import MapOrigin
from gsmap_core.mapfile import read_map_file
from gsmap_core.mapping.export import fused_map_of, write_fused_map_file
from gsmap_core.mapping.global_map import GlobalMap
from gsmap_core.resources import resolve_weights
from gsmap_ros.map_builder_output import MapBuilderOutput
from gsmap_ros.map_builder_parameters import MAP_BUILDER_PARAMETERS, fusion_settings
from gsmap_ros.parameters import NodeParameters
from gsmap_ros.pose_source import EgoMotion, PoseSource, TransformSource, make_transform_source

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

#: Folder of the tiles inside `map.directory`.
TILES = 'tiles'
_ENDING = '.map.json'


@dataclass
class MapBuilderParts:
    """The parts of a configured map builder.

    Args:
        fused: the map; the caller keeps threads apart.
        directory: the folder that files stay in.
        transforms: TF.
        pose: waits for ego poses.
        output: publishers.
        calibration: of the model, in words.
        origin: of the map frame; None: not known.
    """

    fused: GlobalMap
    directory: Path
    transforms: TransformSource
    pose: PoseSource
    output: MapBuilderOutput
    calibration: str
    origin: MapOrigin | None

    def save(self, name: str) -> str:
        """Write the whole map into a file of the folder; returns what to answer.

        Raises:
            GsmapError: the name is not allowed, or a tile or the file fails.
        """
        path = file_inside(self.directory, name)
        whole = self.fused.whole_map()
        write_fused_map_file(path, whole, self.origin)
        return f"saved {len(whole)} elements to '{path}'"

    def load(self, name: str) -> str:
        """Put a saved map in the place of everything; returns what to answer.

        Raises:
            GsmapError: the name is not allowed, or the file holds no fused map.
        """
        path = file_inside(self.directory, name)
        saved = fused_map_of(read_map_file(path))
        if saved is None:
            raise DataError(f"'{path}' holds local maps; expected a map that save_map wrote")
        count = self.fused.replace_with(saved.elements, saved.stamp_ns)
        return f"loaded {count} elements from '{path}'"

    def close(self) -> None:
        """Write what is not on disk yet and give everything back."""
        self.transforms.close()
        self.output.close()
        self.fused.close()


def make_builder_parts(node: LifecycleNode, values: NodeParameters) -> MapBuilderParts:
    """Validate the parameters, open the map and create what they ask for.

    Raises:
        GsmapError: a parameter, the folder or the checkpoint is not usable.
    """
    values.require_valid()
    settings = fusion_settings({r.name: values[r.name] for r in MAP_BUILDER_PARAMETERS})
    directory = usable_directory(values['map.directory'])
    file_inside(directory, values['map.file'])
    origin = origin_from_text(values['map.origin'])
    calibration, text = _calibration(values['model.weights'])
    fused = GlobalMap(settings, calibration, directory / TILES)
    try:
        output = MapBuilderOutput(node, values)
        transforms = make_transform_source(node)
    except BaseException:
        fused.close()
        raise
    pose = PoseSource(transforms, values['base_frame'], values['map_frame'], values['map_frame'])
    node.get_logger().info(
        f"configured: map in '{directory}' ({fused.num_tiles_on_disk} tiles); calibration: {text}"
    )
    return MapBuilderParts(fused, directory, transforms, pose, output, text, origin)


def _calibration(weights: str) -> tuple[Calibration | None, str]:
    """Return the calibration in a checkpoint, and what is used in words."""
    if not weights:
        return None, 'none (model.weights is empty)'
    path = resolve_weights(weights)
    found = read_calibration(path)
    if found is None:
        return None, f'none stored in {path.name} (gsmap evaluate --store-calibration)'
    return found, f'{path.name}: {found.description}'


def usable_directory(text: str) -> Path:
    """Return the folder that `map.directory` names, made if needed.

    Raises:
        ConfigError: the name is empty, or the folder cannot be made.
    """
    if not text:
        raise ConfigError("parameter 'map.directory' is empty; expected the folder of the map")
    path = Path(text).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"parameter 'map.directory' is '{text}': the folder cannot be made ({error}); give "
            'one that can be written'
        ) from None
    return path.resolve()


def file_inside(directory: Path, name: str) -> Path:
    """Return the file that `map.file` names; it never lies outside the folder of the map.

    Raises:
        ConfigError: the name leads elsewhere (links count), or is no map file.
    """
    target = (directory / name).resolve()
    is_inside = target != directory and target.is_relative_to(directory)
    if not name or not is_inside or target.is_relative_to(directory / TILES):
        raise ConfigError(
            f"parameter 'map.file' is '{name}': it must lie inside map.directory ('{directory}') "
            f"and outside its '{TILES}'; give a name like 'town{_ENDING}'"
        )
    if not target.name.endswith(_ENDING):
        raise ConfigError(f"parameter 'map.file' is '{name}'; expected a name ending in {_ENDING}")
    return target


def origin_from_text(text: str) -> MapOrigin | None:
    """Return the origin that `map.origin` names; None where it is empty.

    Raises:
        ConfigError: it is not two or three numbers in their ranges.
    """
    words = text.replace(',', ' ').split()
    if not words:
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3):
        raise ConfigError(
            f"parameter 'map.origin' is '{text}'; expected LATITUDE LONGITUDE [ALTITUDE]"
        )
    return MapOrigin(*numbers)


def ego_pose_at(parts: MapBuilderParts, frames: tuple[str, str], stamp_ns: int) -> EgoMotion:
    """Look the ego pose up in the map frame; odometry alone will not do for a map that stays.

    Args:
        parts: of the node.
        frames: map frame and ego frame.
        stamp_ns: of the local map [ns].

    Raises:
        TransformError: it is not available (yet).
    """
    matrix = parts.transforms.lookup(*frames, stamp_ns)
    return EgoMotion(frames[0], matrix, {}, {})
