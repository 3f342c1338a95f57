"""What the mapping node holds between configure and cleanup, made from its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gsmap_core.images import decode_width
from gsmap_core.mapping.identity import IdentityConfig, IdentityTracker
from gsmap_core.mapping.tracked import TrackedPredictor
from gsmap_core.rig import load_rig
from gsmap_core.runtime.predictor import Predictor
from gsmap_core.runtime.stream import StreamGuard
from gsmap_ros.camera_input import CameraInputs, choose_cameras
from gsmap_ros.camera_sync import CameraSync, SyncSettings
from gsmap_ros.conversions import image_from_message, probe_cv_bridge, reduced_from_compressed
from gsmap_ros.frame_builder import FrameBuilder, ImageDecoder
from gsmap_ros.map_output import MapOutput
from gsmap_ros.parameters import NodeParameters
from gsmap_ros.pose_source import (
    OdometrySource,
    PoseSource,
    TransformSource,
    make_transform_source,
)

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode


@dataclass
class MappingParts:
    """The parts of a configured mapping node.

    Args:
        sync: groups images into sets.
        inputs: subscriptions and calibrations of the cameras.
        transforms: TF.
        odometry: ego pose from a topic, or None.
        pose: ego pose and extrinsics of sets.
        builder: makes frames of sets.
        predictor: makes maps of frames.
        mapper: the predictor, with ids that stay.
        output: publishers.
        rig_name: name of the rig, for diagnostics.
        info: about the weights.
    """

    sync: CameraSync[Any]
    inputs: CameraInputs
    transforms: TransformSource
    odometry: OdometrySource | None
    pose: PoseSource
    builder: FrameBuilder
    predictor: Predictor
    mapper: TrackedPredictor
    output: MapOutput
    rig_name: str
    info: dict[str, str]

    def close(self) -> None:
        """Give everything back that the node holds."""
        self.inputs.stop()
        self.builder.close()
        self.transforms.close()
        if self.odometry is not None:
            self.odometry.close()
        self.output.close()


def make_parts(
    node: LifecycleNode, values: NodeParameters, on_image: Callable[[str, int, Any], None]
) -> MappingParts:
    """Validate the parameters, load the weights and create what they ask for.

    What may fail comes before what has to be given back.

    Args:
        node: creates subscriptions and publishers.
        values: its parameters.
        on_image: called with camera, stamp [ns] and message.

    Raises:
        GsmapError: a parameter, the rig file or the checkpoint is not usable.
    """
    values.require_valid()
    rig = load_rig(values['rig.file']) if values['rig.file'] else None
    transport, is_rectified = values['image_transport'], values['images_rectified']
    names = choose_cameras(
        values.texts('cameras'), rig, node.get_topic_names_and_types(), transport, is_rectified
    )
    settings = SyncSettings(
        names,
        values['sync.reference'],
        round(values['sync.max_spread_s'] * 1e9),
        round(values['sync.timeout_s'] * 1e9),
        values['sync.min_cameras'],
    )
    limits = {'max_gap_s': values['max_gap_s'], 'max_pose_jump_m': values['max_pose_jump_m']}
    predictor = Predictor(
        values['model.weights'],
        device=values['model.device'],
        precision=values['model.precision'],
        **limits,
    )
    identity = IdentityConfig(
        max_distance_m=values['identity.max_distance_m'],
        max_missed_frames=values['identity.max_missed_frames'],
    )
    mapper = TrackedPredictor(predictor, IdentityTracker(identity), StreamGuard(**limits))
    if rig is not None:
        predictor.warm_up(rig)
    rig_name = 'camera_info' if rig is None else rig.name
    inputs = CameraInputs(
        node, names, transport, is_rectified, values['image_reliability'], rig, on_image
    )
    base, odom = values['base_frame'], values['odom_frame']
    transforms = make_transform_source(node)
    odometry = OdometrySource(node, odom, base) if values['pose_source'] == 'odometry' else None
    buffer = None if odometry is None else odometry.buffer
    pose = PoseSource(transforms, base, values['map_frame'], odom, buffer)
    builder = FrameBuilder(
        inputs.calibrations,
        inputs.topics,
        _decoder(node, transport, decode_width(predictor.config.image)),
        pose,
        values['sync.min_cameras'],
        rig_name,
    )
    output = MapOutput(node, values)
    info = predictor.info
    node.get_logger().info(
        f'configured: cameras {", ".join(names)}; reference {settings.reference}; '
        + ', '.join(f'{key} {value}' for key, value in info.items())
    )
    sync: CameraSync[Any] = CameraSync(settings)
    return MappingParts(
        sync,
        inputs,
        transforms,
        odometry,
        pose,
        builder,
        predictor,
        mapper,
        output,
        rig_name,
        info,
    )


def _decoder(node: LifecycleNode, transport: str, least_width_px: int | None) -> ImageDecoder:
    if transport == 'compressed':
        return partial(reduced_from_compressed, least_width_px=least_width_px)
    bridge, reason = probe_cv_bridge()
    used = 'cv_bridge' if bridge else f'own conversion ({reason})'
    node.get_logger().info(f'raw images: {used}')
    convert = bridge or image_from_message
    return lambda message, topic: (convert(message, topic), 1)
