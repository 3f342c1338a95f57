"""The Predictor answers alike on the CPU and on a GPU, with Gaussians, history and fusion."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fake_drives import FakeDrive, micro_config

from gsmap_core.config import FusionConfig, ModelConfig, PoseConfig
from gsmap_core.geometry.transforms import transform_from_quaternion
from gsmap_core.models.checkpoint import save_checkpoint
from gsmap_core.models.mapper import OnlineMapper
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.structures import PerceptionRange

pytestmark = pytest.mark.gpu
#: [m] and [m^2]; single precision on both sides.
TOLERANCE = 1e-3


def with_history() -> ModelConfig:
    config = micro_config()
    bev = replace(
        config.bev, order='official', self_attention='deformable', can_bus=True,
        can_bus_source='pose', history=True, num_layers=2,
    )  # fmt: skip
    return replace(
        config,
        reference='lidar',
        range=PerceptionRange(-15.0, 15.0, -30.0, 30.0),
        bev=bev,
        lidar_pose=PoseConfig((0.9, 0.0, 1.8), (0.0, 0.0, 0.0, 1.0)),
    )


@pytest.mark.parametrize(
    'config',
    [
        micro_config(),
        replace(micro_config(), representation='gaussians'),
        with_history(),
        replace(micro_config(), fusion=FusionConfig(kind='keyframe_streaming')),
        replace(micro_config(), fusion=FusionConfig(kind='keyframe_stacking', num_wide_blocks=2)),
    ],
    ids=['points', 'gaussians', 'history', 'keyframe_streaming', 'keyframe_stacking'],
)
def test_gpu_equals_cpu_over_a_drive(config: ModelConfig, tmp_path) -> None:
    if not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    path = tmp_path / 'model.safetensors'
    save_checkpoint(path, OnlineMapper(config))
    drive = FakeDrive(num_frames=3)
    predictors = [Predictor(path, device=device) for device in ('cpu', 'cuda')]
    for index in range(3):
        pose = transform_from_quaternion([3.0 * index, 0, 0], [0, 0, 0, 1])
        frame = replace(drive.frame(index), map_from_base=pose)
        on_cpu, on_gpu = (predictor.predict(frame) for predictor in predictors)
        assert len(on_cpu) == len(on_gpu) > 0
        # Scores of a random network lie close together: compare by place, not by rank.
        for element in on_cpu.elements:
            nearest = min(
                (other for other in on_gpu.elements if other.category == element.category),
                key=lambda other: (
                    abs(other.score - element.score)
                    + np.abs(other.vertices[0] - element.vertices[0]).sum()
                ),
            )
            np.testing.assert_allclose(nearest.vertices, element.vertices, atol=TOLERANCE)
            assert abs(nearest.score - element.score) < TOLERANCE
            if element.covariance is not None:
                np.testing.assert_allclose(nearest.covariance, element.covariance, atol=TOLERANCE)
