"""The frozen, validated values that cross layers: camera frames in, map elements out.

Everything here is NumPy and plain Python. Tensors, messages and files are made from these
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gsmap_core.categories import category_by_id
from gsmap_core.errors import CalibrationError, DataError

FloatArray = npt.NDArray[np.float64]
ImageArray = npt.NDArray[np.uint8]

DistortionModel = Literal['none', 'plumb_bob', 'rational_polynomial', 'equidistant']
DISTORTION_MODELS: tuple[str, ...] = ('none', 'plumb_bob', 'rational_polynomial', 'equidistant')
#: Reference frames a local map can be expressed in. `ego`: x forward, y left. `lidar`: x right, y
#: forward (nuScenes protocols).
REFERENCES: tuple[str, ...] = ('ego', 'lidar', 'map')


def check_transform(name: str, matrix: npt.ArrayLike) -> FloatArray:
    """Return `matrix` as a (4, 4) float64 rigid transform.

    Args:
        name: what to call it in the error.
        matrix: (4, 4) homogeneous matrix, `dst_from_src`.

    Raises:
        DataError: wrong shape, not finite, or the rotation is not orthonormal to 1e-4.
    """
    result = np.asarray(matrix, dtype=np.float64)
    if result.shape != (4, 4):
        raise DataError(f"transform '{name}' has shape {result.shape}; expected (4, 4)")
    if not np.isfinite(result).all():
        raise DataError(f"transform '{name}' holds NaN or infinity; expected finite numbers")
    rotation = result[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4) or np.linalg.det(rotation) < 0:
        raise DataError(
            f"transform '{name}' is not rigid; expected an orthonormal rotation with "
            'determinant +1'
        )
    return result


@dataclass(frozen=True)
class Camera:
    """Calibration of one camera.

    Args:
        name: unique name inside the rig, e.g. `cam_front`; also the topic namespace.
        frame_id: its optical frame (z forward, x right, y down).
        width_px: image width the intrinsics belong to [px].
        height_px: image height the intrinsics belong to [px].
        intrinsics: (3, 3) float64 matrix [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] [px]; pixel centres
            at integer coordinates.
        base_from_camera: (4, 4) float64, camera (optical) frame to ego frame [m].
        distortion_model: one of `DISTORTION_MODELS`; `none` means the images are rectified.
        distortion: coefficients in the order of the model.

    Raises:
        CalibrationError: fx or fy is not positive, a size is not positive, or the distortion model
            is unknown.
        DataError: `base_from_camera` is not a rigid transform.
    """

    name: str
    frame_id: str
    width_px: int
    height_px: int
    intrinsics: FloatArray
    base_from_camera: FloatArray
    distortion_model: str = 'none'
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Validate and normalise array types."""
        intrinsics = np.asarray(self.intrinsics, dtype=np.float64)
        if intrinsics.shape != (3, 3):
            raise CalibrationError(
                f"camera '{self.name}': intrinsics have shape {intrinsics.shape}; expected (3, 3)"
            )
        if not np.isfinite(intrinsics).all() or intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
            raise CalibrationError(
                f"camera '{self.name}': intrinsics have K[0] == {intrinsics[0, 0]:g} "
                '(uncalibrated); publish a calibrated '
                f'CameraInfo or set cameras.{self.name}.intrinsics in the rig file'
            )
        if self.width_px <= 0 or self.height_px <= 0:
            raise CalibrationError(
                f"camera '{self.name}': size {self.width_px} x {self.height_px} px; expected "
                'two positive numbers'
            )
        if self.distortion_model not in DISTORTION_MODELS:
            raise CalibrationError(
                f"camera '{self.name}': distortion model '{self.distortion_model}' is not "
                'supported; '
                f'expected one of {", ".join(DISTORTION_MODELS)}'
            )
        object.__setattr__(self, 'intrinsics', intrinsics)
        object.__setattr__(
            self,
            'base_from_camera',
            check_transform(f'{self.name}: base_from_camera', self.base_from_camera),
        )
        object.__setattr__(self, 'distortion', tuple(float(value) for value in self.distortion))

    def scaled(self, width_px: int, height_px: int) -> Camera:
        """Return this camera for images resized by cv2.resize (half-pixel centres)."""
        scale_x, scale_y = width_px / self.width_px, height_px / self.height_px
        intrinsics = self.intrinsics.copy()
        intrinsics[0] *= scale_x
        intrinsics[1] *= scale_y
        intrinsics[0, 2] += 0.5 * scale_x - 0.5
        intrinsics[1, 2] += 0.5 * scale_y - 0.5
        return replace(self, width_px=width_px, height_px=height_px, intrinsics=intrinsics)


@dataclass(frozen=True)
class CameraRig:
    """The cameras of one vehicle, in order.

    Args:
        name: name of the rig, shown in diagnostics and bag metadata.
        cameras: at least one camera, names unique. The first is the reference camera of a set.
        base_from_lidar: (4, 4) float64, frame of the nuScenes protocols (x right, y forward, at
            the roof lidar) to ego frame [m]; None: unknown. Only models with `reference: lidar`
            read it.

    Raises:
        CalibrationError: no camera, or a name occurs twice.
        DataError: `base_from_lidar` is not a rigid transform.
    """

    name: str
    cameras: tuple[Camera, ...]
    base_from_lidar: FloatArray | None = None

    def __post_init__(self) -> None:
        """Validate names and the lidar."""
        object.__setattr__(self, 'cameras', tuple(self.cameras))
        if self.base_from_lidar is not None:
            object.__setattr__(
                self,
                'base_from_lidar',
                check_transform(f'{self.name}: base_from_lidar', self.base_from_lidar),
            )
        names = [camera.name for camera in self.cameras]
        if not names:
            raise CalibrationError(
                f"rig '{self.name}' has no camera; expected at least one under 'cameras'"
            )
        if len(set(names)) != len(names):
            raise CalibrationError(
                f"rig '{self.name}' names a camera twice: {', '.join(names)}; expected unique "
                'names'
            )

    def __len__(self) -> int:
        """Return the number of cameras N."""
        return len(self.cameras)

    @property
    def names(self) -> tuple[str, ...]:
        """Camera names in order."""
        return tuple(camera.name for camera in self.cameras)

    def camera(self, name: str) -> Camera:
        """Return the camera called `name`.

        Raises:
            CalibrationError: the rig has no such camera.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise CalibrationError(
            f"rig '{self.name}' has no camera '{name}'; it has {', '.join(self.names)}"
        )


@dataclass(frozen=True)
class SurroundFrame:
    """The images of one rig treated as one moment, with calibration, ego pose and stamps.

    Args:
        stamp_ns: reference stamp [ns since the Unix epoch]; the ego frame of the result is the
            vehicle at this moment.
        rig: calibration of the cameras; sizes equal the sizes of the images.
        images: N entries, (H, W, 3) uint8 RGB each, or None where the camera is missing in this
            set.
        camera_stamps_ns: N acquisition stamps [ns]; None where the image is missing. Empty: all
            equal `stamp_ns`.
        map_from_base: (4, 4) ego pose at `stamp_ns`, or None if unknown.
        base_from_cameras: (N, 4, 4) camera frame *at the camera's own stamp* to the ego frame at
            `stamp_ns` [m]: the extrinsics with the ego motion inside the set already in them.
            Omitted: the rig's own extrinsics.
        sample_id: id of the frame in its dataset; empty when live.
        scene: name of the drive, or empty.

    Raises:
        DataError: counts, shapes or types do not fit the rig.
    """

    stamp_ns: int
    rig: CameraRig
    images: tuple[ImageArray | None, ...]
    camera_stamps_ns: tuple[int | None, ...] = ()
    map_from_base: FloatArray | None = None
    base_from_cameras: FloatArray = field(default_factory=lambda: np.empty((0, 4, 4)))
    sample_id: str = ''
    scene: str = ''

    def __post_init__(self) -> None:
        """Validate against the rig and fill the optional arrays."""
        num_cameras = len(self.rig)
        images = tuple(self.images)
        if len(images) != num_cameras:
            raise DataError(
                f"surround frame has {len(images)} images; rig '{self.rig.name}' has "
                f'{num_cameras} cameras '
                '(pass None for a missing one)'
            )
        for camera, image in zip(self.rig.cameras, images, strict=True):
            expected = (camera.height_px, camera.width_px, 3)
            if image is not None and (image.dtype != np.uint8 or image.shape != expected):
                raise DataError(
                    f"camera '{camera.name}': image is {image.dtype} {image.shape}; expected "
                    f'uint8 {expected} (RGB) as the '
                    'calibration says'
                )
        stamps = tuple(self.camera_stamps_ns) or tuple(
            None if image is None else self.stamp_ns for image in images
        )
        if len(stamps) != num_cameras:
            raise DataError(
                f'surround frame has {len(stamps)} camera stamps; expected {num_cameras}'
            )
        extrinsics = np.asarray(self.base_from_cameras, dtype=np.float64)
        if extrinsics.size == 0:
            extrinsics = np.stack([camera.base_from_camera for camera in self.rig.cameras])
        if extrinsics.shape != (num_cameras, 4, 4):
            raise DataError(
                f'base_from_cameras has shape {extrinsics.shape}; expected ({num_cameras}, 4, 4)'
            )
        object.__setattr__(self, 'images', images)
        object.__setattr__(self, 'camera_stamps_ns', stamps)
        object.__setattr__(self, 'base_from_cameras', extrinsics)
        if self.map_from_base is not None:
            object.__setattr__(
                self, 'map_from_base', check_transform('map_from_base', self.map_from_base)
            )

    @property
    def is_complete(self) -> bool:
        """Whether every camera has an image."""
        return all(image is not None for image in self.images)


@dataclass(frozen=True)
class PerceptionRange:
    """Metric extent of a local map in its reference frame, always given with that frame [m].

    Raises:
        DataError: a minimum is not below its maximum.
    """

    x_min: float = -30.0
    x_max: float = 30.0
    y_min: float = -15.0
    y_max: float = 15.0

    def __post_init__(self) -> None:
        """Validate the order of the limits."""
        if not (self.x_min < self.x_max and self.y_min < self.y_max):
            raise DataError(
                f'range x [{self.x_min}, {self.x_max}] y [{self.y_min}, {self.y_max}] m is '
                'empty; expected min < max'
            )

    @property
    def length_x_m(self) -> float:
        """Extent along x [m]."""
        return self.x_max - self.x_min

    @property
    def length_y_m(self) -> float:
        """Extent along y [m]."""
        return self.y_max - self.y_min


@dataclass(frozen=True)
class MapElement:
    """One map element: a category and its ordered vertices, in the frame of the map that holds it.

    Args:
        category: category id (`gsmap_core.categories`).
        vertices: (P, 2) or (P, 3) float64, in order [m]; P >= 2 for an open and P >= 3 for a
            closed element, all finite.
        closed: True for a ring; the first vertex is not repeated.
        score: confidence in [0, 1]; None in ground truth.
        covariance: (P, 3) float64, xx, xy, yy of every vertex [m^2]; None: not provided.
        id: identity over frames, positive; None or 0: not tracked.
        num_observations: frames it was fused from; 1 in a local map, 0 in ground truth.

    Raises:
        DataError: a shape, value or category is not allowed.
    """

    category: int
    vertices: FloatArray
    closed: bool = False
    score: float | None = None
    covariance: FloatArray | None = None
    id: int | None = None
    num_observations: int = 1

    def __post_init__(self) -> None:
        """Validate shapes and values."""
        name = category_by_id(self.category).name
        vertices = np.asarray(self.vertices, dtype=np.float64)
        if vertices.ndim != 2 or vertices.shape[1] not in (2, 3):
            raise DataError(
                f"element '{name}': vertices have shape {vertices.shape}; expected (P, 2) or "
                '(P, 3)'
            )
        minimum = 3 if self.closed else 2
        if len(vertices) < minimum:
            raise DataError(
                f"element '{name}' has {len(vertices)} vertices; expected at least {minimum}"
            )
        if not np.isfinite(vertices).all():
            raise DataError(
                f"element '{name}' holds NaN or infinite vertices; expected finite numbers"
            )
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise DataError(
                f"element '{name}' has score {self.score}; expected a number in [0, 1]"
            )
        if self.covariance is not None:
            covariance = np.asarray(self.covariance, dtype=np.float64)
            if covariance.shape != (len(vertices), 3):
                raise DataError(
                    f"element '{name}': covariance has shape {covariance.shape}; expected "
                    f'({len(vertices)}, 3)'
                )
            object.__setattr__(self, 'covariance', covariance)
        object.__setattr__(self, 'vertices', vertices)

    @property
    def category_name(self) -> str:
        """Name of the category."""
        return category_by_id(self.category).name

    @property
    def has_z(self) -> bool:
        """Whether the vertices carry a height."""
        return self.vertices.shape[1] == 3

    def loop_xy(self) -> FloatArray:
        """Return the (P or P + 1, 2) planar vertices; a closed element repeats its first one."""
        xy = self.vertices[:, :2]
        return np.concatenate([xy, xy[:1]]) if self.closed else xy


@dataclass(frozen=True)
class VectorMap:
    """The elements of one `SurroundFrame` (a local map) or of a drive (a fused or complete map).

    Args:
        elements: the elements, in the frame named by `reference`.
        stamp_ns: moment the map belongs to [ns].
        range: extent that was looked at.
        reference: `ego`, `lidar` or `map`.
        sample_id: id of the frame; empty when live.
        scene: name of the drive, or empty.
        map_from_base: (4, 4) ego pose at `stamp_ns`, or None if unknown.

    Raises:
        DataError: the reference is unknown or the pose is not rigid.
    """

    elements: tuple[MapElement, ...] = ()
    stamp_ns: int = 0
    range: PerceptionRange = field(default_factory=PerceptionRange)
    reference: str = 'ego'
    sample_id: str = ''
    scene: str = ''
    map_from_base: FloatArray | None = None

    def __post_init__(self) -> None:
        """Validate the reference and the pose."""
        if self.reference not in REFERENCES:
            raise DataError(
                f"reference '{self.reference}' is unknown; expected one of {', '.join(REFERENCES)}"
            )
        object.__setattr__(self, 'elements', tuple(self.elements))
        if self.map_from_base is not None:
            object.__setattr__(
                self, 'map_from_base', check_transform('map_from_base', self.map_from_base)
            )

    def __len__(self) -> int:
        """Return the number of elements M."""
        return len(self.elements)

    def of_category(self, category: int) -> tuple[MapElement, ...]:
        """Return the elements of one category, in order."""
        return tuple(element for element in self.elements if element.category == category)
