"""Fused map and single frames against the true map, with numbers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gsmap_core.errors import DataError
from gsmap_core.evaluation.fused_map import MAX_DISTANCE_M, format_gain, fusion_gain
from gsmap_core.geometry.transforms import make_transform
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

AREA = PerceptionRange(-1000.0, 1000.0, -1000.0, 1000.0)


def line(x0: float, x1: float, y: float, **values: object) -> MapElement:
    return MapElement(0, np.array([[x0, y], [x1, y]]), **values)  # type: ignore[arg-type]


def frame(x_m: float, *elements: MapElement) -> VectorMap:
    pose = make_transform(np.eye(3), [x_m, 0.0, 0.0])
    return VectorMap(elements, map_from_base=pose)


TRUTH = VectorMap((line(-200.0, 200.0, 2.0),), range=AREA, reference='map')


def test_distances_and_completeness_by_hand() -> None:
    # At x = 0 the view is x -30 to 30, at x = 60 it is 30 to 90: 120 m of the line are in view.
    frames = [
        frame(0.0, line(-30.0, 30.0, 2.4, score=0.9)),
        frame(60.0, line(-30.0, 0.0, 1.2, score=0.9), line(0.0, 30.0, 9.0, score=0.1)),
    ]
    fused = VectorMap((line(-30.0, 60.0, 2.1),), range=AREA, reference='map')
    gain = fusion_gain(fused, frames, TRUTH, min_score=0.4, categories=['divider'])
    assert gain.fused.distance_m == pytest.approx(0.1)
    assert gain.fused.completeness == pytest.approx(90 / 120, abs=0.01)
    assert gain.fused.correctness == 1.0
    # 0.4 and 0.8 m off; all of the first view and half of the second found.
    assert gain.single.distance_m == pytest.approx(0.6)
    assert gain.single.completeness == pytest.approx(0.75, abs=0.01)
    assert gain.num_frames == 2
    assert 'divider' in format_gain(gain)


def test_what_has_no_true_line_counts_with_the_greatest_distance() -> None:
    wrong = VectorMap(
        (line(-10.0, 10.0, 2.0), line(-10.0, 10.0, 50.0)), range=AREA, reference='map'
    )
    gain = fusion_gain(wrong, [frame(0.0)], TRUTH, min_score=0.4, categories=['divider'])
    assert gain.fused.distance_m == pytest.approx(MAX_DISTANCE_M / 2)
    assert gain.fused.correctness == pytest.approx(0.5)
    # A frame without a prediction has no distance, and found nothing.
    assert np.isnan(gain.single.distance_m) and gain.single.completeness == 0.0
    assert gain.to_dict()['single']['distance_m'] is None


def test_sigmas_of_the_fused_map_are_compared_with_its_errors() -> None:
    x = np.linspace(-20.0, 20.0, 401)
    noise = 0.2 * np.random.default_rng(0).standard_normal(401)
    element = MapElement(
        0, np.stack([x, 2.0 + noise], 1), covariance=np.tile([0.01, 0.0, 0.01], (401, 1))
    )
    fused = VectorMap((element,), range=AREA, reference='map')
    gain = fusion_gain(fused, [frame(0.0)], TRUTH, min_score=0.4, categories=['divider'])
    assert gain.sigma_factor == pytest.approx(2.0, rel=0.15)


def test_maps_in_other_frames_are_refused() -> None:
    with pytest.raises(DataError, match="fused map is in the 'ego' frame"):
        fusion_gain(VectorMap(()), [], TRUTH, min_score=0.4)
    fused = VectorMap((), range=AREA, reference='map')
    with pytest.raises(DataError, match='no pose'):
        fusion_gain(fused, [VectorMap(())], TRUTH, min_score=0.4)
