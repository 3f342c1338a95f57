"""Rigid transforms as 4x4 float64 matrices `dst_from_src`; quaternions in x, y, z, w order.

`points_dst = dst_from_src @ points_src`, so in a chain the inner names touch:
`map_from_base @ base_from_camera`.
"""

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import DataError
from gsmap_core.structures import FloatArray


def make_transform(
    rotation: npt.ArrayLike | None = None, translation: npt.ArrayLike | None = None
) -> FloatArray:
    """Build a (4, 4) transform from a (3, 3) rotation (or identity) and (3,) shift (or 0) [m]."""
    result = np.eye(4)
    if rotation is not None:
        result[:3, :3] = rotation
    if translation is not None:
        result[:3, 3] = translation
    return result


def invert(dst_from_src: npt.ArrayLike) -> FloatArray:
    """Return `src_from_dst` for one (4, 4) or a stack (..., 4, 4) of rigid transforms."""
    matrix = np.asarray(dst_from_src, dtype=np.float64)
    rotation_t = np.swapaxes(matrix[..., :3, :3], -1, -2)
    result = np.zeros_like(matrix)
    result[..., :3, :3] = rotation_t
    result[..., :3, 3] = -np.einsum('...ij,...j->...i', rotation_t, matrix[..., :3, 3])
    result[..., 3, 3] = 1.0
    return result


def transform_points(dst_from_src: npt.ArrayLike, points_src: npt.ArrayLike) -> FloatArray:
    """Move (P, 3) points from the source to the destination frame [m]."""
    matrix, points = (
        np.asarray(dst_from_src, dtype=np.float64),
        np.asarray(points_src, dtype=np.float64),
    )
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def quaternion_to_matrix(quaternion_xyzw: npt.ArrayLike) -> FloatArray:
    """Return the (..., 3, 3) rotation of a quaternion (..., 4) x, y, z, w, normalised first.

    Raises:
        DataError: a quaternion is all zero or not finite.
    """
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not np.isfinite(norm).all() or (norm == 0).any():
        raise DataError(
            f'quaternion {quaternion.tolist()} has no direction; expected a finite, non-zero '
            'x, y, z, w'
        )
    x, y, z, w = np.moveaxis(quaternion / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: npt.ArrayLike) -> FloatArray:
    """Return the (..., 4) unit quaternion x, y, z, w (w >= 0) of rotations (..., 3, 3)."""
    matrix = np.asarray(rotation, dtype=np.float64)
    m00, m01, m02 = (matrix[..., 0, i] for i in range(3))
    m10, m11, m12 = (matrix[..., 1, i] for i in range(3))
    m20, m21, m22 = (matrix[..., 2, i] for i in range(3))
    # Four times each component squared; the largest one is a safe divisor.
    squares = np.stack(
        [1 + m00 - m11 - m22, 1 - m00 + m11 - m22, 1 - m00 - m11 + m22, 1 + m00 + m11 + m22],
        axis=-1,
    )
    candidates = np.stack(
        [
            np.stack([squares[..., 0], m10 + m01, m20 + m02, m21 - m12], axis=-1),
            np.stack([m10 + m01, squares[..., 1], m21 + m12, m02 - m20], axis=-1),
            np.stack([m20 + m02, m21 + m12, squares[..., 2], m10 - m01], axis=-1),
            np.stack([m21 - m12, m02 - m20, m10 - m01, squares[..., 3]], axis=-1),
        ],
        axis=-2,
    )
    best = np.argmax(squares, axis=-1)
    quaternion = np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :]
    quaternion = quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return np.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def transform_from_quaternion(
    translation: npt.ArrayLike, quaternion_xyzw: npt.ArrayLike
) -> FloatArray:
    """Build a (4, 4) transform from a translation [m] and a quaternion x, y, z, w."""
    return make_transform(quaternion_to_matrix(quaternion_xyzw), translation)


def rotation_from_rpy(roll_rad: float, pitch_rad: float, yaw_rad: float) -> FloatArray:
    """Return the (3, 3) rotation Rz(yaw) @ Ry(pitch) @ Rx(roll) (REP-103 fixed-axis order)."""
    cr, sr, cp, sp = np.cos(roll_rad), np.sin(roll_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    cy, sy = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def yaw_of(dst_from_src: npt.ArrayLike) -> float:
    """Return the heading of the source's x axis in the destination's plane, (-pi, pi] [rad]."""
    matrix = np.asarray(dst_from_src, dtype=np.float64)
    return float(np.arctan2(matrix[1, 0], matrix[0, 0]))


def interpolate_transform(
    first: npt.ArrayLike, second: npt.ArrayLike, fraction: float
) -> FloatArray:
    """Interpolate between two (4, 4) transforms: translation linearly, rotation by slerp.

    Args:
        first: transform at fraction 0.
        second: transform at fraction 1.
        fraction: in [0, 1].
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    quaternion = slerp(matrix_to_quaternion(a[:3, :3]), matrix_to_quaternion(b[:3, :3]), fraction)
    return transform_from_quaternion(a[:3, 3] + fraction * (b[:3, 3] - a[:3, 3]), quaternion)


def slerp(first_xyzw: npt.ArrayLike, second_xyzw: npt.ArrayLike, fraction: float) -> FloatArray:
    """Interpolate between two unit quaternions (4,) x, y, z, w along the shorter arc."""
    a, b = np.asarray(first_xyzw, dtype=np.float64), np.asarray(second_xyzw, dtype=np.float64)
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    if cosine > 1 - 1e-12:
        result = a + fraction * (b - a)
    else:
        angle = np.arccos(min(cosine, 1.0))
        result = (np.sin((1 - fraction) * angle) * a + np.sin(fraction * angle) * b) / np.sin(
            angle
        )
    return result / np.linalg.norm(result)
