"""Order of cameras, the two frames, CAN bus and history: what a checkpoint gets to see."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, fake_rig, micro_config

from gsmap_core.config import ModelConfig, PoseConfig, load_official_config
from gsmap_core.data.bag import open_bag, write_bag
from gsmap_core.data.keyframe_json import KeyFrameRecording
from gsmap_core.errors import DataError
from gsmap_core.frame_inputs import can_bus_features, in_order
from gsmap_core.geometry.transforms import (
    invert,
    transform_from_quaternion,
    transform_points,
)
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.models.outputs import MapperOutput
from gsmap_core.models.postprocess import to_vector_maps
from gsmap_core.runtime.inputs import InputBuilder
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.structures import PerceptionRange, SurroundFrame

HALF = np.sqrt(0.5)
#: x right, y forward: turned by -90 degrees, 0.9 m ahead of and 1.8 m above the ego frame.
MOUNT = transform_from_quaternion([0.9, 0.1, 1.8], [0.0, 0.0, -HALF, HALF])


def lidar_config(**bev) -> ModelConfig:
    config = micro_config()
    return replace(
        config,
        reference='lidar',
        range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
        bev=replace(config.bev, order='official', **bev),
    )


def save(tmp_path, config: ModelConfig) -> str:
    torch.manual_seed(0)
    path = tmp_path / f'{config.reference}.safetensors'
    save_checkpoint(path, OnlineMapper(config))
    return str(path)


def with_mount(frame: SurroundFrame, mount: np.ndarray) -> SurroundFrame:
    return replace(frame, rig=replace(frame.rig, base_from_lidar=mount))


def vertices(vector_map) -> np.ndarray:
    return np.stack([element.vertices for element in vector_map.elements])


def test_the_lidar_is_right_and_forward() -> None:
    ahead, right = transform_points(MOUNT, [[0.0, 10.0, 0.0], [5.0, 0.0, 0.0]])
    np.testing.assert_allclose(ahead, [10.9, 0.1, 1.8], atol=1e-12)
    np.testing.assert_allclose(right, [0.9, -4.9, 1.8], atol=1e-12)


def test_a_map_goes_through_both_frames_and_back() -> None:
    """Ego metres, the network's units in the lidar frame, ego metres again."""
    config = replace(lidar_config(), closing_distance_m=0.0)
    frame = with_mount(FakeDrive().frame(0), MOUNT)
    inputs = InputBuilder(config).build([frame])
    assert inputs.ego_from_reference is not None
    generator = np.random.default_rng(3)
    ego = generator.uniform([-25, -12, 0], [25, 12, 0], size=(8, 20, 3))
    lidar = transform_points(invert(MOUNT), ego.reshape(-1, 3))[:, :2].reshape(8, 20, 2)
    unit = torch.from_numpy(config.grid.metres_to_unit(lidar)).float()
    scores = torch.linspace(3.0, 1.0, 8)[None, None, :, None].expand(1, 1, 8, 3).clone()
    scores[..., 1:] = -20.0
    output = MapperOutput(class_logits=scores, points=unit[None, None], bev=torch.zeros(1))
    (back,) = to_vector_maps(
        output, config, max_elements=8, ego_from_reference=inputs.ego_from_reference
    )
    assert back.reference == 'ego'
    np.testing.assert_allclose(vertices(back), ego[:, :, :2], atol=1e-4)
    # The network looks where the map is drawn: the same pixels from either frame.
    batch = inputs.batch
    assert batch.ego_from_reference is not None
    matrix = (batch.pixels_from_ego @ batch.ego_from_reference[:, None])[0].double().numpy()
    homogeneous = np.insert(ego.reshape(-1, 3), 3, 1.0, axis=1).T
    in_lidar = np.insert(transform_points(invert(MOUNT), ego.reshape(-1, 3)), 3, 1.0, axis=1).T
    np.testing.assert_allclose(
        matrix @ in_lidar, batch.pixels_from_ego[0].double().numpy() @ homogeneous, atol=1e-2
    )


def test_the_answer_does_not_depend_on_where_the_ego_frame_is(tmp_path) -> None:
    """The same cameras around the same lidar, seen from two ego frames."""
    predictor = Predictor(save(tmp_path, lidar_config()), device='cpu')
    frame = FakeDrive().frame(0)
    from_base = predictor.predict(with_mount(frame, MOUNT))
    cameras = tuple(
        replace(camera, base_from_camera=invert(MOUNT) @ camera.base_from_camera)
        for camera in frame.rig.cameras
    )
    at_lidar = replace(
        frame,
        rig=replace(frame.rig, cameras=cameras, base_from_lidar=np.eye(4)),
        base_from_cameras=invert(MOUNT) @ frame.base_from_cameras,
    )
    from_lidar = predictor.predict(at_lidar)
    assert from_base.reference == from_lidar.reference == 'ego'
    flat = vertices(from_lidar).reshape(-1, 2)
    moved = transform_points(MOUNT, np.insert(flat, 2, 0.0, axis=1))[:, :2]
    np.testing.assert_allclose(vertices(from_base).reshape(-1, 2), moved, atol=2e-3)
    assert from_base.range.x_min == pytest.approx(-29.1)
    assert from_base.range.y_max == pytest.approx(15.1)


def test_the_rig_comes_before_the_checkpoint_and_one_of_them_must_know(tmp_path) -> None:
    frame = FakeDrive().frame(0)
    predictor = Predictor(save(tmp_path, lidar_config()), device='cpu')
    with pytest.raises(DataError, match=r"rig 'fake'.*add base_from_lidar .*rig file"):
        predictor.predict(frame)
    known = replace(
        lidar_config(), lidar_pose=PoseConfig((2.0, 0.0, 1.0), (0.0, 0.0, -HALF, HALF))
    )
    (own,) = InputBuilder(known).build([frame]).ego_from_reference or [np.eye(4)]
    np.testing.assert_allclose(own[:3, 3], [2.0, 0.0, 1.0])
    np.testing.assert_allclose(own[:3, 1], [1.0, 0.0, 0.0], atol=1e-12)
    (rig,) = InputBuilder(known).build([with_mount(frame, MOUNT)]).ego_from_reference or [own]
    np.testing.assert_allclose(rig, MOUNT)
    assert InputBuilder(micro_config()).build([frame]).ego_from_reference is None


def test_cameras_are_put_into_the_learned_order(caplog) -> None:
    names = ('cam_2', 'cam_0', 'cam_1')
    config = replace(micro_config(), num_cameras=3, cameras=names)
    frame = FakeDrive(num_cameras=3).frame(0)
    images = (frame.images[0], None, frame.images[2])
    frame = replace(frame, images=images, camera_stamps_ns=(10, None, 30))
    ordered = in_order(frame, names)
    assert ordered.rig.names == names
    assert ordered.images[0] is frame.images[2] and ordered.images[2] is None
    assert ordered.camera_stamps_ns == (30, 10, None)
    np.testing.assert_array_equal(ordered.base_from_cameras, frame.base_from_cameras[[2, 0, 1]])
    batch = InputBuilder(config).build([frame]).batch
    plain = InputBuilder(micro_config()).build([frame]).batch
    torch.testing.assert_close(batch.images[0], plain.images[0, [2, 0, 1]])
    assert batch.camera_mask.tolist() == [[True, True, False]]
    assert not caplog.records
    # Cameras of other names stay as they are, and that is said once.
    builder = InputBuilder(replace(config, cameras=('a', 'b', 'c')))
    for _ in range(2):
        assert torch.equal(builder.build([frame]).batch.images, plain.images)
    assert len(caplog.records) == 1 and 'learned the cameras a, b, c' in caplog.text


def test_can_bus_of_a_turning_vehicle_by_hand() -> None:
    before = transform_from_quaternion([5.0, 7.0, 0.0], [0.0, 0.0, np.sin(0.2), np.cos(0.2)])
    turned = transform_from_quaternion([6.0, 9.0, 0.5], [0.0, 0.0, np.sin(-0.1), np.cos(-0.1)])
    alone = can_bus_features(turned, None, rest=1.0)
    assert alone[:3].tolist() == [0, 0, 0] and alone[7:16].tolist() == [1.0] * 9
    np.testing.assert_allclose(alone[3:7], [np.cos(0.1), 0, 0, -np.sin(0.1)], atol=1e-12)
    # Heading from 0 to 2 pi; no frame before, so no change of it.
    np.testing.assert_allclose(alone[16:], [2 * np.pi - 0.2, 0.0])
    after = can_bus_features(turned, before)
    np.testing.assert_allclose(after[:3], [1.0, 2.0, 0.5])
    np.testing.assert_allclose(after[17], np.degrees(-0.6))
    assert can_bus_features(None, None)[3:7].tolist() == [1, 0, 0, 0]


def test_history_is_carried_until_reset_and_needs_poses(tmp_path) -> None:
    bev = {'self_attention': 'deformable', 'can_bus': True, 'can_bus_source': 'pose'}
    config = replace(
        lidar_config(**bev, history=True, num_layers=2),
        lidar_pose=PoseConfig((0.9, 0.0, 1.8), (0.0, 0.0, -HALF, HALF)),
    )
    predictor = Predictor(save(tmp_path, config), device='cpu')
    drive = FakeDrive(num_frames=2)
    first, second = (
        replace(
            drive.frame(i), map_from_base=transform_from_quaternion([3.0 * i, 0, 0], [0, 0, 0, 1])
        )
        for i in range(2)
    )
    alone = vertices(predictor.predict(second))
    predictor.reset()
    start = vertices(predictor.predict(first))
    following = vertices(predictor.predict(second))
    assert np.abs(following - alone).max() > 1e-4
    predictor.reset()
    np.testing.assert_array_equal(vertices(predictor.predict(first)), start)
    with pytest.raises(DataError, match='reset'):
        predictor.predict_batch([first, second])
    with pytest.raises(DataError, match='no ego pose'):
        predictor.predict(replace(second, map_from_base=None))
    single = Predictor(save(tmp_path, replace(config, bev=replace(config.bev, history=False))))
    np.testing.assert_allclose(vertices(single.predict(second)), alone, atol=1e-4)
    assert fake_rig().base_from_lidar is None


@pytest.mark.data
def test_real_key_frame_gives_the_data_sets_own_projection(data_dir, tmp_path) -> None:
    """`lidar2img` of nuScenes, half the size, for the cameras in the published order."""
    folder = data_dir / 'nuscenes_keyframe' / 'scene-0061_kf00'
    values = json.loads((folder / 'calibration.json').read_text())
    write_bag(KeyFrameRecording([folder]), tmp_path / 'bag')
    drive = open_bag(tmp_path / 'bag')
    frame, config = drive.frame(0), load_official_config('maptr_r50')
    inputs = InputBuilder(config).build([frame])
    assert inputs.ego_from_reference is not None
    # The set is the vehicle at the front camera's moment, the published matrix at the lidar's.
    pose, pose_then = frame.map_from_base, drive.map_from_base(values['timestamp_us'] * 1000)
    assert pose is not None and pose_then is not None
    moved = invert(pose) @ pose_then @ inputs.ego_from_reference[0]
    matrices = inputs.batch.pixels_from_ego[0].double().numpy() @ moved
    for name, matrix in zip(config.cameras, matrices, strict=True):
        expected = np.array(values['cameras'][name.upper()]['lidar2img'])
        expected[:2] *= 0.5
        np.testing.assert_allclose(matrix[:3], expected[:3], atol=1e-3, err_msg=name)
