"""Real poses: nuScenes scenes and Argoverse 2 logs, as tables without their devkits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from core.data.helpers.made_up_poses import pose_table

from gsmap_core.data.pose_tables import PoseTable, pose_table_of
from gsmap_core.data.traversals import TraversalConfig, analyse_traversals
from gsmap_core.geometry.transforms import quaternion_to_matrix

pytestmark = pytest.mark.data


def nuscenes_table(path: Path) -> PoseTable:
    scene = json.loads(path.read_text())
    planar = [[frame['x'], frame['y'], frame['yaw']] for frame in scene['keyframes']]
    return pose_table(scene['scene'], planar, scene['location'])


def argoverse_table(log: Path, every: int = 10) -> PoseTable:
    feather = pytest.importorskip('pyarrow.feather', reason='Argoverse 2 poses need pyarrow')
    columns = feather.read_table(log / 'city_SE3_egovehicle.feather').to_pydict()
    stamps = np.array(columns['timestamp_ns'])
    order = np.argsort(stamps)[::every]
    quaternion = np.stack([columns[name] for name in ('qx', 'qy', 'qz', 'qw')], axis=-1)
    poses = np.tile(np.eye(4), (len(order), 1, 1))
    poses[:, :3, :3] = quaternion_to_matrix(quaternion[order])
    poses[:, :3, 3] = np.stack([columns[f't{axis}_m'] for axis in 'xyz'], axis=-1)[order]
    city = next((log / 'map').glob('log_map_archive_*')).name.split('____')[1].split('_')[0]
    return PoseTable(log.name, city, stamps[order], poses)


def again(table: PoseTable, forward_m: float) -> PoseTable:
    """Return a drive along the same way, every pose this far ahead of the real one."""
    poses = table.map_from_base.copy()
    poses[:, :3, 3] += forward_m * poses[:, :3, 0]
    return PoseTable(f'{table.name}-again', table.place, table.stamps_ns, poses)


def test_nuscenes_scenes(data_dir: Path) -> None:
    paths = sorted((data_dir / 'nuscenes' / 'trajectories').glob('*.json'))
    if not paths:
        pytest.skip(f'{data_dir} has no nuScenes trajectories')
    tables = [nuscenes_table(path) for path in paths]
    analysis = analyse_traversals(tables)
    # Five scenes in four cities, no two of them on the same street.
    assert not any(drive.is_multi_traversal for drive in analysis.drives)
    for table, polygon in zip(analysis.tables, analysis.polygons, strict=True):
        way = np.diff(table.map_from_base[:, :2, 3], axis=0)
        driven = float(np.linalg.norm(way, axis=1).sum())
        # A straight drive sees 30 m beside 60 m more than its length; in a bend boxes fan out.
        assert polygon.area == pytest.approx(30 * (60 + driven), rel=0.5)
        assert polygon.area > 1800 - 1e-6
    repeated = analyse_traversals([*tables, *(again(table, 15.0) for table in tables)])
    assert all(drive.overlaps == (f'{drive.name}-again',) for drive in repeated.drives[::2])
    own = repeated.pairs.reference_frame == repeated.pairs.adjacent_frame
    assert own.sum() == sum(map(len, tables))
    np.testing.assert_allclose(repeated.pairs.iou[own], 45 / 75, atol=1e-9)


def test_nuscenes_drives_by_their_reader(data_dir: Path) -> None:
    """A drive of a dataset is asked like a bag; its poses are those of the plain files."""
    pytest.importorskip('nuscenes', reason='needs nuscenes-devkit')
    from gsmap_core.data.nuscenes import NuScenesDataset

    folder = data_dir / 'nuscenes'
    if not (folder / 'v1.0-mini-meta').is_dir():
        pytest.skip(f'{folder} has no v1.0-mini-meta')
    for drive in NuScenesDataset(folder, 'v1.0-mini-meta'):
        table = pose_table_of(drive)
        expected = nuscenes_table(folder / 'trajectories' / f'{drive.name}.json')
        assert (table.name, table.place) == (expected.name, expected.place)
        np.testing.assert_allclose(table.map_from_base, drive.city_poses, atol=1e-9)
        shift = table.map_from_base[:, :2, 3] - expected.map_from_base[:, :2, 3]
        assert np.abs(shift).max() < 0.05


def test_argoverse_logs(data_dir: Path) -> None:
    logs = [p for p in sorted((data_dir / 'av2').glob('sensor/*/*')) if p.is_dir()]
    if not logs:
        pytest.skip(f'{data_dir} has no Argoverse 2 logs')
    tables = [argoverse_table(log) for log in logs]
    assert {table.place for table in tables} == {'MIA', 'PIT'}
    assert not len(analyse_traversals(tables).overlaps)
    repeated = analyse_traversals(
        [*tables, *(again(table, 20.0) for table in tables)], TraversalConfig(max_iou=0.9)
    )
    assert all(drive.is_multi_traversal for drive in repeated.drives)
    own = repeated.pairs.reference_frame == repeated.pairs.adjacent_frame
    # The vehicles pitch and roll a little: 20 m ahead are a little less on the map.
    np.testing.assert_allclose(repeated.pairs.iou[own], 0.5, atol=2e-3)
    assert own.sum() == sum(map(len, tables))
