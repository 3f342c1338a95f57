"""Images become sets by their stamps."""

from __future__ import annotations

import numpy as np

from gsmap_core.data.camera_sets import build_camera_sets

MS = 1_000_000
TOLERANCE = 100 * MS


def stamps(*values_ms: float) -> np.ndarray:
    return np.array([round(value * MS) for value in values_ms], dtype=np.int64)


def sets(*cameras: np.ndarray) -> list[tuple[float, tuple[int | None, ...]]]:
    return [(s.stamp_ns / MS, s.indices) for s in build_camera_sets(list(cameras), TOLERANCE)]


def test_cameras_that_fire_one_after_the_other_stay_together():
    # 12 Hz, the last camera almost half a period after the first.
    front = stamps(*(np.arange(6) * 83.0))
    back = front + 35 * MS
    late = front + 41 * MS
    assert sets(front, back, late) == [(83.0 * n, (n, n, n)) for n in range(6)]


def test_no_image_is_used_twice():
    front = stamps(0, 83, 166, 249)
    back = stamps(30, 113, 279)  # the third is missing
    assert [indices for _, indices in sets(front, back)] == [(0, 0), (1, 1), (2, None), (3, 2)]


def test_a_set_without_the_reference_camera():
    front = stamps(0, 83, 249, 332)
    left, back = stamps(5, 88, 171, 254, 337), stamps(35, 118, 201, 284, 367)
    found = sets(front, left, back)
    assert [indices for _, indices in found] == [
        (0, 0, 0),
        (1, 1, 1),
        (None, 2, 2),
        (2, 3, 3),
        (3, 4, 4),
    ]
    assert found[2][0] == 171.0


def test_a_faster_camera_adds_no_sets():
    front = stamps(0, 100, 200, 300)
    fast = stamps(*(np.arange(7) * 50.0 + 3))
    found = sets(front, fast)
    assert [indices[0] for _, indices in found] == [0, 1, 2, 3]
    assert [indices[1] for _, indices in found] == [0, 2, 4, 6]


def test_images_beyond_the_tolerance_are_not_joined():
    assert sets(stamps(0, 500), stamps(120, 500)) == [
        (0.0, (0, None)),
        (500.0, (1, 1)),
    ]


def test_order_of_arrival_does_not_matter():
    front, back = stamps(83, 0, 166), stamps(113, 196, 30)
    assert sets(front, back) == [(0.0, (1, 2)), (83.0, (0, 0)), (166.0, (2, 1))]


def test_a_reference_camera_that_never_delivers_is_replaced():
    assert sets(stamps(), stamps(0, 100)) == [(0.0, (None, 0)), (100.0, (None, 1))]
    assert sets(stamps(), stamps()) == []


def test_every_image_of_an_irregular_drive_is_in_one_set_at_most():
    generator = np.random.default_rng(5)
    cameras = []
    for offset in (0, 8, 16, 25, 35):
        times = np.cumsum(generator.uniform(60, 110, 200)) if offset == 0 else cameras[0] / MS
        jitter = generator.normal(0, 2, 200)
        kept = generator.random(200) > 0.1
        cameras.append(stamps(*(times + offset + jitter)) if offset else stamps(*times))
        if offset:
            cameras[-1] = cameras[-1][kept]
    found = build_camera_sets(cameras, TOLERANCE)
    for camera, values in enumerate(cameras):
        used = [s.indices[camera] for s in found if s.indices[camera] is not None]
        assert len(used) == len(set(used))
        assert len(used) > 0.98 * len(values)
    assert [s.stamp_ns for s in found] == sorted(s.stamp_ns for s in found)
