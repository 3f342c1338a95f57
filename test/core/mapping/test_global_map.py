"""Local maps fused into one: known noise averages out, elements grow, come, go and stay few."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.noisy_streets import RANGE, STAMP_NS, NoisyStreet, offset_from

from gsmap_core.errors import DataError
from gsmap_core.evaluation.fused_map import fusion_gain
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.mapping.global_map import GlobalMap
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.structures import MapElement, VectorMap

#: Every frame counts in full, as the noise of these streams is independent.
INDEPENDENT = FusionSettings(
    decorrelation_m=0.0, pose_sigma_m=0.0, pose_yaw_sigma_rad=0.0, sigma_floor_m=0.001
)


def local_map(*elements: MapElement, x_m: float = 0.0, index: int = 0) -> VectorMap:
    return VectorMap(
        elements,
        stamp_ns=STAMP_NS + index,
        range=RANGE,
        map_from_base=make_transform(np.eye(3), [x_m, 0.0, 0.0]),
    )


def line(*vertices: tuple[float, float], category: int = 0, sigma_m: float = 0.3) -> MapElement:
    xy = np.array(vertices)
    covariance = np.tile([sigma_m**2, 0.0, sigma_m**2], (len(xy), 1))
    return MapElement(category, xy, score=0.9, covariance=covariance)


def standing(
    count: int, sigma_m: float, seed: int, settings: FusionSettings = INDEPENDENT
) -> MapElement:
    """The only element after a line at y = 3 was seen from one place with independent noise."""
    random, fused = np.random.default_rng(seed), GlobalMap(settings)
    for index in range(count):
        y = 3.0 + sigma_m * random.standard_normal()
        fused.integrate(local_map(line((-20, y), (20, y), sigma_m=sigma_m), index=index))
    (element,) = fused.to_vector_map().elements
    return element


@pytest.mark.parametrize('count', [4, 25])
def test_noise_averages_out_with_the_root_of_the_observations(count):
    errors = [standing(count, 0.2, seed).vertices[:, 1].mean() - 3.0 for seed in range(100, 116)]
    rms = float(np.sqrt(np.mean(np.square(errors))))
    # 16 samples of a normal distribution: their rms is within 50 % of sigma but for 1 in 200.
    assert rms == pytest.approx(0.2 / np.sqrt(count), rel=0.5)


def test_the_sigma_of_a_vertex_falls_with_the_root_of_the_observations():
    element = standing(25, 0.5, 0)
    # xx is along the line, yy across it: both from 25 sightings of 0.5 m.
    assert element.covariance is not None
    np.testing.assert_allclose(element.covariance[:, [0, 2]], 0.5**2 / 25, rtol=1e-6)
    np.testing.assert_allclose(element.covariance[:, 1], 0.0, atol=1e-12)
    assert element.num_observations == 25


def test_two_gaussians_are_fused_by_hand():
    fused = GlobalMap(replace(INDEPENDENT, confirm_observations=2))
    fused.integrate(local_map(line((-20, 0.0), (20, 0.0), sigma_m=0.1)))
    fused.integrate(local_map(line((-20, 0.5), (20, 0.5), sigma_m=0.2), index=1))
    (element,) = fused.to_vector_map().elements
    # Information 100 and 25: the mean lies a fifth of the way, the variance is 1 / 125.
    np.testing.assert_allclose(element.vertices[:, 1], 0.1, atol=1e-9)
    np.testing.assert_allclose(element.covariance[:, 2], 1 / 125, rtol=1e-9)


def test_frames_from_one_place_do_not_count_as_independent():
    settings = replace(INDEPENDENT, decorrelation_m=10.0, min_weight=0.1)
    element = standing(21, 0.5, 0, settings)
    # The first counts once, the other twenty a tenth each.
    np.testing.assert_allclose(element.covariance[:, 2], 0.5**2 / 3.0, rtol=1e-6)


def test_a_drive_gives_whole_lines_close_to_the_truth():
    street = NoisyStreet(length_m=120.0, sigma_m=0.2)
    fused, frames = GlobalMap(INDEPENDENT), list(street.frames())
    for frame in frames:
        fused.integrate(frame)
    result = fused.to_vector_map()
    assert sorted(e.category for e in result.elements) == [0, 1, 2, 2]
    for element in result.elements:
        if element.closed:
            continue
        start, end = element.vertices[[0, -1], :2]
        assert np.linalg.norm(end - start) > 150.0  # 120 m driven, 30 m seen ahead and behind
        offsets = min(
            (offset_from(y, street, element.vertices) for y in (-6.0, 0.0, 6.0)),
            key=lambda values: float(np.abs(values).mean()),
        )
        # In the middle of the drive every place was seen about 30 times.
        middle = offsets[60:100]
        assert np.abs(middle).max() < 4 * 0.2 / np.sqrt(30)
    gain = fusion_gain(result, frames, street.truth(), min_score=0.4)
    assert gain.fused.distance_m < 0.5 * gain.single.distance_m
    assert gain.fused.completeness > 0.95  # what was seen once or twice is not in it


def test_a_crossing_is_one_ring_with_its_corners():
    street = NoisyStreet(length_m=80.0, sigma_m=0.2)
    fused = GlobalMap(INDEPENDENT)
    for frame in street.frames():
        fused.integrate(frame)
    (ring,) = fused.to_vector_map().of_category(1)
    assert ring.closed
    true = street.truth().of_category(1)[0].vertices
    for corner in true:
        assert np.linalg.norm(ring.vertices - corner, axis=1).min() < 0.5
    # Not too large and not too small: 4 m x 10 m.
    x, y = ring.vertices.T
    area = 0.5 * abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    assert area == pytest.approx(40.0, rel=0.1)


def test_an_element_is_confirmed_when_it_was_seen_often_enough():
    fused = GlobalMap(replace(INDEPENDENT, confirm_observations=3))
    for index in range(2):
        fused.integrate(local_map(line((-20, 3), (20, 3)), index=index))
        assert len(fused.to_vector_map()) == 0 and fused.num_candidates == 1
    fused.integrate(local_map(line((-20, 3), (20, 3)), index=2))
    assert len(fused.to_vector_map()) == 1 and fused.num_candidates == 0


def test_what_should_be_seen_and_is_not_is_given_up():
    fused = GlobalMap(INDEPENDENT)
    for index in range(6):
        fused.integrate(local_map(line((-10, 3), (10, 3)), line((-20, -3), (20, -3)), index=index))
    assert len(fused.to_vector_map()) == 2
    for index in range(6, 40):
        fused.integrate(local_map(line((-20, -3), (20, -3)), index=index))
    (element,) = fused.to_vector_map().elements
    assert element.vertices[:, 1] == pytest.approx(-3.0)


def test_what_is_out_of_view_stays():
    fused = GlobalMap(INDEPENDENT)
    for index in range(6):
        fused.integrate(local_map(line((-10, 3), (10, 3)), index=index))
    for index in range(60):
        fused.integrate(local_map(x_m=60.0, index=6 + index))
    assert len(fused.to_vector_map()) == 1


def test_a_part_that_is_gone_leaves_two_elements():
    fused = GlobalMap(INDEPENDENT)
    for index in range(8):
        fused.integrate(local_map(line((-25, 3), (25, 3)), index=index))
    for index in range(40):
        parts = line((-25, 3), (-8, 3)), line((8, 3), (25, 3))
        fused.integrate(local_map(*parts, index=8 + index))
    elements = fused.to_vector_map().elements
    assert len(elements) == 2 and elements[0].id != elements[1].id
    assert not any((np.abs(e.vertices[:, 0]) < 6).any() for e in elements)


def test_pieces_of_one_line_become_one_element():
    """A gap that was hidden at first is closed when it comes into view."""
    fused = GlobalMap(INDEPENDENT)
    for index in range(5):
        fused.integrate(local_map(line((-25, 3), (-5, 3)), line((5, 3), (25, 3)), index=index))
    assert len(fused.to_vector_map()) == 2
    for index in range(10):
        fused.integrate(local_map(line((25, 3), (-25, 3)), index=5 + index))
    (element,) = fused.to_vector_map().elements
    assert np.ptp(element.vertices[:, 0]) == pytest.approx(50.0, abs=0.5)


def test_lines_beside_each_other_stay_two():
    fused = GlobalMap(INDEPENDENT)
    random = np.random.default_rng(3)
    for index in range(20):
        a, b = 0.05 * random.standard_normal(2)
        fused.integrate(
            local_map(line((-20, a), (20, a)), line((20, 0.9 + b), (-20, 0.9 + b)), index=index)
        )
    means = sorted(e.vertices[:, 1].mean() for e in fused.to_vector_map().elements)
    assert means == pytest.approx([0.0, 0.9], abs=0.06)


def test_an_island_is_a_ring_even_if_it_was_seen_in_pieces_first():
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([6 * np.cos(angles), 4 * np.sin(angles)], axis=1)
    half = MapElement(2, circle[:22], score=0.9)
    whole = MapElement(2, circle, closed=True, score=0.9)
    fused = GlobalMap(INDEPENDENT)
    for index in range(4):
        fused.integrate(local_map(half, index=index))
    before = fused.to_vector_map().elements[0].id
    for index in range(4):
        fused.integrate(local_map(whole, index=4 + index))
    (element,) = fused.to_vector_map().elements
    assert element.closed and element.id == before


def test_a_cut_off_crossing_does_not_shrink_a_whole_one():
    corners = np.array([[10.0, -4.0], [14.0, -4.0], [14.0, 4.0], [10.0, 4.0]])
    whole = MapElement(1, corners, closed=True, score=0.9)
    fused = GlobalMap(INDEPENDENT)
    for index in range(5):
        fused.integrate(local_map(whole, index=index))
    # From x = -17 the range ends at 13 in the map: only three of four metres are in view.
    cut = np.array([[27.0, -4.0], [30.0, -4.0], [30.0, 4.0], [27.0, 4.0]])
    for index in range(10):
        seen = MapElement(1, cut, closed=True, score=0.9)
        fused.integrate(local_map(seen, x_m=-17.0, index=5 + index))
    (ring,) = fused.to_vector_map().elements
    assert np.ptp(ring.vertices[:, 0]) == pytest.approx(4.0, abs=0.05)
    assert ring.num_observations == 15


def test_directed_categories_do_not_match_against_their_direction():
    fused = GlobalMap(INDEPENDENT)
    for index in range(5):
        fused.integrate(
            local_map(
                line((-20, 0), (20, 0), category=3),
                line((20, 0.8), (-20, 0.8), category=3),
                index=index,
            )
        )
    starts = sorted(e.vertices[0, 0] for e in fused.to_vector_map().elements)
    assert starts == pytest.approx([-20.0, 20.0])


def test_heights_are_fused():
    fused = GlobalMap(INDEPENDENT)
    for index, z in enumerate((1.0, 1.2, 1.4, 1.6)):
        xyz = np.array([[-20.0, 0.0, z], [20.0, 0.0, z]])
        fused.integrate(local_map(MapElement(0, xyz, score=0.9), index=index))
    (element,) = fused.to_vector_map().elements
    assert element.has_z
    np.testing.assert_allclose(element.vertices[:, 2], 1.3, atol=1e-9)


def test_scores_below_the_least_are_not_fused():
    fused = GlobalMap(INDEPENDENT)
    weak = replace(line((-20, 3), (20, 3)), score=0.39)
    assert fused.integrate(local_map(weak)).num_measured == 0
    assert fused.num_candidates == 0


def test_maps_without_pose_or_in_another_frame_are_refused():
    fused = GlobalMap()
    with pytest.raises(DataError, match='without a pose'):
        fused.integrate(VectorMap((line((-20, 3), (20, 3)),)))
    with pytest.raises(DataError, match="'map' frame"):
        fused.integrate(VectorMap((), reference='map', map_from_base=np.eye(4)))


def test_a_new_submap_keeps_what_is_confirmed_only():
    fused = GlobalMap(INDEPENDENT)
    for index in range(5):
        fused.integrate(local_map(line((-20, 3), (20, 3)), index=index))
    fused.integrate(local_map(line((-20, 3), (20, 3)), line((-20, -8), (20, -8)), index=5))
    assert fused.num_candidates == 1
    fused.start_submap()
    assert fused.num_candidates == 0 and fused.num_elements == 1


def test_elements_that_make_no_line_are_passed_over():
    point = np.zeros((3, 2))
    elements = MapElement(0, point, score=0.9), MapElement(1, point, closed=True, score=0.9)
    fused = GlobalMap()
    assert fused.integrate(local_map(*elements)).num_measured == 0
