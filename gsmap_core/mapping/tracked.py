"""A predictor whose elements keep their ids: what the node and the offline commands run."""

from __future__ import annotations

from typing import Protocol

from gsmap_core.mapping.identity import IdentityTracker
from gsmap_core.structures import SurroundFrame, VectorMap


class ResetCount(Protocol):
    """How often a stream broke off; see `runtime.stream.StreamStatus`."""

    @property
    def num_resets(self) -> int:
        """Resets so far, whoever asked for them."""


class FramePredictor(Protocol):
    """What is asked of a predictor; see `runtime.predictor.Predictor`."""

    @property
    def is_temporal(self) -> bool:
        """Whether it watches its stream itself."""

    @property
    def stream_status(self) -> ResetCount:
        """Its resets."""

    def predict(self, frame: SurroundFrame, /) -> VectorMap:
        """Map the next camera set."""

    def reset(self, reason: str = ..., /) -> None:
        """Begin anew with the next camera set."""


class Guard(Protocol):
    """What watches a stream; see `runtime.stream.StreamGuard`."""

    def check(self, frame: SurroundFrame, /) -> str:
        """Return why the next set does not go on from the set before; empty: it does."""

    def forget(self) -> None:
        """Begin anew with the next set."""


class TrackedPredictor:
    """Maps camera sets and gives their elements ids that stay.

    Ids begin anew whenever the stream does: with every reset of the predictor, its own (a gap, a
    jump of the pose) and those that somebody asks it for. A predictor without memory does not
    watch its stream; then the guard does, and resets it.

    Args:
        predictor: makes the maps.
        tracker: gives the ids.
        guard: watches the stream of a predictor that does not.
        is_tracked: whether elements get ids; may change between sets.
    """

    def __init__(
        self,
        predictor: FramePredictor,
        tracker: IdentityTracker,
        guard: Guard,
        *,
        is_tracked: bool = True,
    ) -> None:
        self.predictor = predictor
        self.tracker = tracker
        self.is_tracked = is_tracked
        self._guard = None if predictor.is_temporal else guard
        self._num_resets = predictor.stream_status.num_resets

    def predict(self, frame: SurroundFrame) -> VectorMap:
        """Map the next camera set of the stream.

        Returns:
            The predictor's map, elements with ids; without, where they are switched off, and where
            the map is not in the ego frame, out of which no pose leads.

        Raises:
            DataError: the set does not suit the model.
        """
        if self._guard is not None:
            if self.predictor.stream_status.num_resets != self._num_resets:
                self._guard.forget()
            reason = self._guard.check(frame)
            if reason:
                self.predictor.reset(reason)
        local_map = self.predictor.predict(frame)
        num_resets = self.predictor.stream_status.num_resets
        is_wanted = self.is_tracked and local_map.reference == 'ego'
        if num_resets != self._num_resets or not is_wanted:
            self.tracker.reset()
        self._num_resets = num_resets
        return self.tracker.update(local_map) if is_wanted else local_map
