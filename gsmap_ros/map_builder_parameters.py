"""The parameters of the map builder node; what concerns the fusion is named as in the core."""

from __future__ import annotations

from dataclasses import replace

from gsmap_core.mapping.settings import LIMITS, FusionSettings
from gsmap_ros.parameter_record import FILES_DIRECTORY, ParameterRecord

_DEFAULTS = FusionSettings()


def _fusion(name: str, description: str) -> ParameterRecord:
    """Return the record of a fusion setting: its default and limits are those of the core."""
    low, high = LIMITS[name]
    return ParameterRecord(f'fusion.{name}', getattr(_DEFAULTS, name), description, low, high)


_FUSION_PARAMETERS: tuple[ParameterRecord, ...] = (
    _fusion('point_sigma_m', 'Standard deviation of vertices of a model without covariances [m].'),
    _fusion('pose_sigma_m', 'Standard deviation of the ego position [m].'),
    _fusion('pose_yaw_sigma_rad', 'Standard deviation of the ego heading [rad].'),
    _fusion(
        'decorrelation_m',
        'Errors of maps that were made closer together are not independent; such a map counts by '
        'its share of this distance; 0: every map counts in full [m].',
    ),
    _fusion('confirm_observations', 'A vertex needs so many sightings to be confirmed.'),
    _fusion(
        'confirm_probability',
        'And this probability of being there, by sightings and misses [0 to 1].',
    ),
    _fusion('detection_probability', 'How often an element that is there is reported [0 to 1].'),
    _fusion(
        'false_probability', 'How often one that is not there is reported at a place [0 to 1].'
    ),
    _fusion('border_margin_m', 'Nearer to the border of the range nothing must be seen [m].'),
    _fusion('sigma_floor_m', 'No vertex is surer than this across its line [m].'),
    _fusion('spacing_m', 'Distance of the vertices of fused elements [m].'),
    _fusion('tile_size_m', 'Side of a tile; fixed once a folder was begun with it [m].'),
    _fusion('active_radius_m', 'Tiles farther away are kept on disk only [m].'),
)

MAP_BUILDER_PARAMETERS: tuple[ParameterRecord, ...] = (
    ParameterRecord(
        'map.directory',
        '~/.ros/gsmap_map',
        'Folder of the map: its tiles, and saved maps; nothing outside is read or written.',
        is_fixed=True,
    ),
    ParameterRecord(
        'map.file',
        'map.map.json',
        'Name of the map file inside map.directory that save_map writes and load_map reads.',
        is_structural=False,
    ),
    ParameterRecord(
        'map.origin',
        '',
        'Where the origin of the map frame lies, LATITUDE LONGITUDE [ALTITUDE]; noted in saved '
        'maps; empty: not known [deg, m].',
    ),
    ParameterRecord('base_frame', 'base_link', 'Ego frame; local maps must be in it.'),
    ParameterRecord('map_frame', 'map', 'Frame of the map; TF must connect it with base_frame.'),
    ParameterRecord(
        'tf.timeout_s', 0.3, 'How long a local map waits for its ego pose [s].', 0.0, 10.0
    ),
    ParameterRecord(
        'model.weights',
        '',
        'Checkpoint file or shipped name whose stored calibration is applied; empty: none.',
        is_path=True,
    ),
    replace(
        _fusion('min_score', 'Elements of local maps with a lower score are not fused [0 to 1].'),
        name='score_threshold',
    ),
    *_FUSION_PARAMETERS,
    ParameterRecord(
        'publish.period_s',
        1.0,
        'Least time between two published maps; each is on disk before it is published [s].',
        0.05,
        60.0,
        is_structural=False,
    ),
    ParameterRecord(
        'publish.markers', True, 'Publish markers for RViz as well.', is_structural=False
    ),
    ParameterRecord(
        'markers.line_width_m',
        0.2,
        'Line width of the markers [m].',
        0.01,
        5.0,
        is_structural=False,
    ),
    ParameterRecord(
        'markers.ellipses',
        False,
        'Also draw the one-sigma ellipses of the vertices.',
        is_structural=False,
    ),
    ParameterRecord('autostart', True, 'Configure and activate without being asked.'),
    FILES_DIRECTORY,
)


def fusion_settings(values: dict[str, object]) -> FusionSettings:
    """Return the settings of the fusion from the values of the parameters.

    Args:
        values: by parameter name.

    Raises:
        ConfigError: two of them do not go together.
    """
    prefix = 'fusion.'
    given = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return FusionSettings(min_score=values['score_threshold'], **given)  # type: ignore[arg-type]
