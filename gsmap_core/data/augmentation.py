"""What training does to a sample: colours, a mirrored world, missing cameras, masked stripes.

Everything works on uint8 pictures that already have the size of the network input, because that is
a twentieth of the work of doing it on the recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gsmap_core.config import ImageConfig
from gsmap_core.data.published_augmentation import distort_in_hsv
from gsmap_core.errors import ConfigError
from gsmap_core.images import (
    PictureArray,
    as_pictures,
    blank_pictures,
    fitted_size,
    prepare_image,
    prepared_intrinsics,
)
from gsmap_core.structures import FloatArray, MapElement, SurroundFrame, VectorMap

#: Luma of RGB (BT.601); a saturation of 0 leaves exactly this grey.
_LUMA = np.array([0.299, 0.587, 0.114])
#: RGB to YIQ (BT.601), in which a change of hue is a rotation of the last two coordinates.
_YIQ_FROM_RGB = np.array(
    [_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
_RGB_FROM_YIQ = np.linalg.inv(_YIQ_FROM_RGB)
#: Mirrors the ego frame left to right (y to -y).
EGO_FLIP = np.diag([1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes to training samples; a probability of 0 turns one off.

    Args:
        photometric: probability of each colour step (brightness, contrast, saturation, hue,
            exchange of channels), drawn for every picture by itself; MapTR: 0.5.
        brightness: largest offset (0 to 255 scale).
        contrast: largest relative change of contrast.
        saturation: largest relative change of saturation.
        hue_deg: largest turn of the hue [deg].
        swap_channels: whether channels are exchanged (MapTR does; colours of paint then mean
            nothing).
        mirror: probability that the world is mirrored left to right.
        camera_drop: probability that one camera of the set is missing.
        grid_mask: probability of masked squares (MapTR: 0.7).
        colours: `linear` steps in RGB, one pass over the pixels; or saturation and hue in `hsv`
            and floating point, in the order of the published models.
        colours_at: with `hsv`, at which size: of the `prepared` pictures (MapTRv2, and MapTR on
            Argoverse 2), or of the `recorded` ones (MapTR on nuScenes; needs `cache_gb: 0`).
        grid_mask_scope: one mask per `sample`, before normalisation; or one for the whole `batch`
            of a step and process, after it, as published.

    Raises:
        ConfigError: a probability is outside [0, 1], a range is negative, or `colours_at` does not
            suit `colours`.
    """

    photometric: float = 0.5
    brightness: float = 32.0
    contrast: float = 0.5
    saturation: float = 0.5
    hue_deg: float = 18.0
    swap_channels: bool = False
    mirror: float = 0.5
    camera_drop: float = 0.0
    grid_mask: float = 0.0
    colours: Literal['linear', 'hsv'] = 'linear'
    colours_at: Literal['prepared', 'recorded'] = 'prepared'
    grid_mask_scope: Literal['sample', 'batch'] = 'sample'

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ('photometric', 'mirror', 'camera_drop', 'grid_mask'):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f'{name} is {value}; expected a probability from 0 to 1')
        for name in ('brightness', 'contrast', 'saturation', 'hue_deg'):
            value = getattr(self, name)
            if value < 0 or (name in ('contrast', 'saturation') and value > 1):
                raise ConfigError(
                    f'{name} is {value}; expected 0 or more (relative ones: up to 1)'
                )
        if self.colours_at == 'recorded' and self.colours != 'hsv':
            raise ConfigError(
                f"colours_at is 'recorded' and colours is '{self.colours}'; expected 'hsv' there"
            )

    @property
    def changes_recorded(self) -> bool:
        """Whether pictures change before they are prepared."""
        return self.photometric > 0 and self.colours_at == 'recorded'

    @property
    def batch_grid_mask(self) -> float:
        """Probability of a GridMask for a whole batch."""
        return self.grid_mask if self.grid_mask_scope == 'batch' else 0.0


@dataclass(frozen=True)
class PreparedFrame:
    """One camera set at the size of the network input, not yet normalised.

    Args:
        pictures: (N, H, W, 3) RGB, uint8 or (bilinear interpolation) float32, padded at the
            bottom and right with the mean colour; mean colour everywhere where the camera is
            missing.
        sizes: (N, 2) int64 width and height of the picture inside the padding [px].
        intrinsics: (N, 3, 3) float64 of the network input [px].
        base_from_cameras: (N, 4, 4) float64 [m].
        camera_mask: (N,) bool, False where the camera is missing.
        mirrored: whether the world is mirrored left to right.
    """

    pictures: PictureArray
    sizes: npt.NDArray[np.int64]
    intrinsics: FloatArray
    base_from_cameras: FloatArray
    camera_mask: npt.NDArray[np.bool_]
    mirrored: bool = False


def prepare_frame(
    frame: SurroundFrame,
    image: ImageConfig,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> PreparedFrame:
    """Resize and pad the pictures of one camera set; the calibration follows.

    Args:
        frame: the camera set.
        image: the network input.
        change: applied to every recorded picture before.
    """
    pictures = blank_pictures(len(frame.rig), image)
    for index, (camera, picture) in enumerate(zip(frame.rig.cameras, frame.images, strict=True)):
        if picture is not None:
            changed = picture if change is None else change(picture)
            pictures[index] = prepare_image(changed, camera, image)
    return PreparedFrame(
        pictures=pictures,
        sizes=np.array([fitted_size(camera, image) for camera in frame.rig.cameras]),
        intrinsics=np.stack([prepared_intrinsics(camera, image) for camera in frame.rig.cameras]),
        base_from_cameras=frame.base_from_cameras,
        camera_mask=np.array([picture is not None for picture in frame.images]),
    )


def mirror_frame(frame: PreparedFrame) -> PreparedFrame:
    """Mirror the world left to right: what a rig mounted the other way round would have seen.

    A point (x, y, z) moves to (x, -y, z) and its pixel u to w - 1 - u, w being the width of the
    picture without padding. Both mirrored, the camera frame stays right-handed.
    """
    pictures = frame.pictures.copy()
    for picture, (width, height) in zip(pictures, frame.sizes, strict=True):
        inside = picture[:height, :width]
        inside[:] = cv2.flip(inside, 1)
    intrinsics = frame.intrinsics.copy()
    intrinsics[:, 0, 2] = frame.sizes[:, 0] - 1 - intrinsics[:, 0, 2]
    camera_flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    return replace(
        frame,
        pictures=pictures,
        intrinsics=intrinsics,
        base_from_cameras=EGO_FLIP @ frame.base_from_cameras @ camera_flip,
        mirrored=not frame.mirrored,
    )


def mirror_map(vector_map: VectorMap) -> VectorMap:
    """Mirror a map in the ego frame left to right (y to -y).

    The vertices of a ring are taken in reverse, because sources orient all rings the same way and
    mirroring turns them round. The ego pose is dropped: no pose gives a mirrored world.
    """
    elements = []
    for element in vector_map.elements:
        vertices = element.vertices.copy()
        vertices[:, 1] *= -1
        covariance = element.covariance
        if covariance is not None:
            covariance = covariance * np.array([1.0, -1.0, 1.0])
        if element.closed:
            vertices = vertices[::-1].copy()
            covariance = None if covariance is None else covariance[::-1].copy()
        elements.append(
            MapElement(
                category=element.category,
                vertices=vertices,
                closed=element.closed,
                score=element.score,
                covariance=covariance,
                id=element.id,
                num_observations=element.num_observations,
            )
        )
    area = vector_map.range
    return replace(
        vector_map,
        elements=tuple(elements),
        range=replace(area, y_min=-area.y_max, y_max=-area.y_min),
        map_from_base=None,
    )


def random_colour_matrix(
    config: AugmentationConfig, generator: np.random.Generator
) -> FloatArray | None:
    """Draw one change of colours as a (3, 4) matrix on (R, G, B, 1), 0 to 255; None: no change.

    All steps are linear in RGB, so that they cost one pass over the pixels (a hue turn is one in
    YIQ, where MapTR turns it in HSV).
    """
    linear, offset = np.eye(3), np.zeros(3)
    chosen = generator.random(5) < config.photometric
    amount = generator.uniform(-1.0, 1.0, 4)
    order = generator.permutation(3)
    if not chosen.any():
        return None
    if chosen[0]:
        offset += config.brightness * amount[0]
    if chosen[1]:
        factor = 1.0 + config.contrast * amount[1]
        linear, offset = factor * linear, factor * offset
    if chosen[2]:
        factor = 1.0 + config.saturation * amount[2]
        step = factor * np.eye(3) + (1.0 - factor) * np.tile(_LUMA, (3, 1))
        linear, offset = step @ linear, step @ offset
    if chosen[3]:
        angle = np.radians(config.hue_deg * amount[3])
        turn = np.eye(3)
        turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        step = _RGB_FROM_YIQ @ turn @ _YIQ_FROM_RGB
        linear, offset = step @ linear, step @ offset
    if chosen[4] and config.swap_channels:
        linear, offset = linear[order], offset[order]
    return np.concatenate([linear, offset[:, None]], axis=1)


def distort_colours(
    frame: PreparedFrame, config: AugmentationConfig, generator: np.random.Generator
) -> PreparedFrame:
    """Change the colours of every picture by itself; the padding keeps its colour."""
    pictures = frame.pictures.copy()
    for picture, (width, height), present in zip(
        pictures, frame.sizes, frame.camera_mask, strict=True
    ):
        inside = picture[:height, :width]
        if config.colours == 'hsv':
            distorted = distort_in_hsv(inside, config, generator)
            if present:
                inside[:] = as_pictures(distorted, pictures.dtype)
            continue
        matrix = random_colour_matrix(config, generator)
        if matrix is not None and present:
            inside[:] = cv2.transform(inside, matrix)
    return replace(frame, pictures=pictures)


def drop_camera(frame: PreparedFrame, generator: np.random.Generator) -> PreparedFrame:
    """Take away one random camera, unless it is the last one present."""
    mask = frame.camera_mask.copy()
    present = np.flatnonzero(mask)
    chosen = generator.integers(max(len(present), 1))
    if len(present) > 1:
        mask[present[chosen]] = False
    return replace(frame, camera_mask=mask)


def mask_stripes(
    frame: PreparedFrame, image: ImageConfig, generator: np.random.Generator
) -> PreparedFrame:
    """Hide squares between stripes (GridMask): the same ones in all cameras of the set."""
    height, width = frame.pictures.shape[1:3]
    period = int(generator.integers(2, height))
    stripe = int(np.clip(int(period / 2 + 0.5), 1, period - 1))
    kept = []
    for length in (height, width):
        position = np.arange(length) + int(generator.integers(period))
        kept.append(position % period < stripe)
    hidden = ~(kept[0][:, None] | kept[1][None, :])
    pictures = frame.pictures.copy()
    pictures[:, hidden] = blank_pictures(1, image)[0, 0, 0]
    return replace(frame, pictures=pictures)


def augment(
    frame: PreparedFrame,
    ground_truth: VectorMap,
    config: AugmentationConfig,
    image: ImageConfig,
    generator: np.random.Generator,
    is_mirrored: bool | None = None,
) -> tuple[PreparedFrame, VectorMap]:
    """Draw and apply the augmentations of one prepared sample; the inputs stay untouched.

    What changes recorded pictures (`changes_recorded`) or whole batches (`batch_grid_mask`) is
    left to those who have them.

    Args:
        frame: pictures and calibration.
        ground_truth: elements and pose.
        config: probabilities and ranges.
        image: the network input.
        generator: draws for this sample.
        is_mirrored: whether the world of the sample's sequence is mirrored; None: drawn here.
    """
    mirrored, dropped, masked = generator.random(3) < (
        config.mirror,
        config.camera_drop,
        config.grid_mask if config.grid_mask_scope == 'sample' else 0.0,
    )
    if mirrored if is_mirrored is None else is_mirrored:
        frame, ground_truth = mirror_frame(frame), mirror_map(ground_truth)
    if config.photometric and not config.changes_recorded:
        frame = distort_colours(frame, config, generator)
    if dropped:
        frame = drop_camera(frame, generator)
    if masked:
        frame = mask_stripes(frame, image, generator)
    return frame, ground_truth
