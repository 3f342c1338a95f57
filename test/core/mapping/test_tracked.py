"""Ids begin anew where the stream does, whoever notices that it broke off."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from gsmap_core.mapping.identity import IdentityTracker
from gsmap_core.mapping.tracked import TrackedPredictor
from gsmap_core.rig import load_rig
from gsmap_core.runtime.stream import StreamGuard, StreamStatus
from gsmap_core.structures import MapElement, SurroundFrame, VectorMap

RIG = load_rig('nuscenes_like')


@dataclass
class FakePredictor:
    """Always sees one line; says for which frames it drops its memory."""

    is_temporal: bool = False
    drops_at_s: tuple[float, ...] = ()
    reference: str = 'ego'
    reasons: list[str] = field(default_factory=list)

    @property
    def stream_status(self):
        return StreamStatus(num_resets=len(self.reasons))

    def reset(self, reason='requested'):
        self.reasons.append(reason)

    def predict(self, frame):
        if frame.stamp_ns * 1e-9 in self.drops_at_s:
            self.reset('pose_jump')
        element = MapElement(0, np.array([[0.0, 0.0], [10.0, 0.0]]), score=0.9)
        return VectorMap(
            (element,), frame.stamp_ns, reference=self.reference, map_from_base=frame.map_from_base
        )


def make(predictor, **more):
    return TrackedPredictor(predictor, IdentityTracker(), StreamGuard(max_gap_s=2.0), **more)


def id_at(mapper, stamp_s):
    frame = SurroundFrame(round(stamp_s * 1e9), RIG, (None,) * len(RIG), map_from_base=np.eye(4))
    (element,) = mapper.predict(frame).elements
    return element.id


def test_a_predictor_without_memory_is_watched():
    predictor = FakePredictor()
    mapper = make(predictor)
    assert [id_at(mapper, t) for t in (0, 1, 2, 5, 6, 3)] == [1, 1, 1, 2, 2, 3]
    assert predictor.reasons == ['gap', 'clock_jump']


def test_a_predictor_with_memory_watches_itself():
    predictor = FakePredictor(is_temporal=True, drops_at_s=(2.0,))
    mapper = make(predictor)
    assert [id_at(mapper, t) for t in (0, 1, 2, 3, 9)] == [1, 1, 2, 2, 2]
    assert predictor.reasons == ['pose_jump']


@pytest.mark.parametrize('is_temporal', [True, False])
def test_a_reset_that_was_asked_for_counts_once(is_temporal):
    predictor = FakePredictor(is_temporal)
    mapper = make(predictor)
    assert id_at(mapper, 5.0) == 1
    predictor.reset('clock_jump')
    assert [id_at(mapper, t) for t in (1.0, 2.0)] == [2, 2]
    assert predictor.reasons == ['clock_jump']


def test_ids_can_be_switched_off_and_on():
    mapper = make(FakePredictor(), is_tracked=False)
    assert id_at(mapper, 0.0) is None
    mapper.is_tracked = True
    assert [id_at(mapper, t) for t in (1.0, 2.0)] == [1, 1]
    mapper.is_tracked = False
    assert id_at(mapper, 3.0) is None and mapper.tracker.num_tracks == 0


def test_maps_that_cannot_be_moved_have_no_ids():
    assert id_at(make(FakePredictor(reference='lidar')), 0.0) is None
