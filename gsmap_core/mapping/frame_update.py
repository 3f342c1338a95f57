"""One frame against the elements near it: what it confirms, moves, prolongs, begins and ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gsmap_core.categories import category_by_id
from gsmap_core.geometry.transforms import invert
from gsmap_core.mapping.association import Match, match_lines, match_rings, polygon_of
from gsmap_core.mapping.fusion import (
    missed,
    prolonged,
    runs_of,
    survivors,
    updated,
    updated_ring,
)
from gsmap_core.mapping.lines import BoolArray, feet_on_line
from gsmap_core.mapping.measurement import in_view
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.track import Track
from gsmap_core.structures import FloatArray, PerceptionRange

#: A measured ring stands for the open pieces of which it covers this share.
_ADOPTED_SHARE = 0.7
#: A ring should be seen when this share of its vertices is in view.
_RING_IN_VIEW = 0.7


class FrameUpdate:
    """The steps of one frame, in the order of its methods.

    Args:
        settings: of the fusion.
        measured: elements of the local map in the map frame, best score first.
        tracks: by identity, the elements that the frame may say something about; it is changed.
        new_id: gives identities.
    """

    def __init__(
        self,
        settings: FusionSettings,
        measured: list[Track],
        tracks: dict[int, Track],
        new_id: Callable[[], int],
    ) -> None:
        self.tracks = tracks
        self.num_born = 0
        self._settings = settings
        self._new_id = new_id
        self._rings = [track for track in measured if track.closed]
        self._lines = [track for track in measured if not track.closed]
        self._seen = {key: np.zeros(len(track), dtype=bool) for key, track in tracks.items()}
        self._born: list[Track] = []

    def fuse_rings(self) -> int:
        """Update rings with measured rings, and begin new ones; returns how many were updated."""
        known = [track for track in self.tracks.values() if track.closed]
        pairs = match_rings(self._rings, known)
        for i, j in pairs:
            areas = (polygon_of(known[j]).area, polygon_of(self._rings[i]).area)
            self._take_over(updated_ring(known[j], self._rings[i], self._settings, areas))
        taken = {i for i, _ in pairs}
        for index, ring in enumerate(self._rings):
            if index in taken or self._adopt(ring):
                continue
            if ring.length_m >= 2 * self._settings.min_length_m:
                self._born.append(ring)
        return len(pairs)

    def _take_over(self, ring: Track) -> None:
        self.tracks[ring.id] = ring
        self._seen[ring.id] = np.ones(len(ring), dtype=bool)

    def _adopt(self, ring: Track) -> bool:
        """Let a ring take the place of the open pieces that it covers (an island seen whole)."""
        if category_by_id(ring.category).is_area or ring.clipped:
            return False
        lines = [t for t in self.tracks.values() if not t.closed and t.category == ring.category]
        matches, _ = match_lines([ring], lines, self._settings)
        covered = [
            lines[match.track]
            for match in matches
            if len(match.overlap.vertices) >= _ADOPTED_SHARE * len(lines[match.track])
        ]
        if not covered:
            return False
        oldest = min(covered, key=lambda track: track.id)
        hits = 1 + max(int(track.hits.max()) for track in covered)
        for track in covered:
            del self.tracks[track.id], self._seen[track.id]
        everywhere = np.full(len(ring), hits, dtype=np.int64)
        self._take_over(replace(ring, id=oldest.id, hits=everywhere))
        return True

    def update_lines(self) -> tuple[list[Match], list[BoolArray]]:
        """Update elements with the measured lines.

        Returns:
            Which line is of which element (by identity), and the claimed vertices of every line.
        """
        known = [t for t in self.tracks.values() if not category_by_id(t.category).is_area]
        matches, claimed = match_lines(self._lines, known, self._settings)
        result = []
        for match in matches:
            identity = known[match.track].id
            self.tracks[identity] = updated(
                self.tracks[identity], self._lines[match.measured], match.overlap, self._settings
            )
            self._seen[identity][match.overlap.vertices] = True
            result.append(replace(match, track=identity))
        return result, claimed

    def note_missed(self, pose: FloatArray, extent: PerceptionRange, weight: float) -> None:
        """Lower the evidence of what should have been seen and was not.

        Args:
            pose: (4, 4) ego pose in the map frame.
            extent: perception range, in the ego frame.
            weight: share that the frame counts by.
        """
        base_from_map, margin = invert(pose), self._settings.border_margin_m
        for identity, track in self.tracks.items():
            visible = in_view(track.xy, base_from_map, extent, margin)
            if track.closed:
                # A ring is seen or missed as a whole.
                is_in_view = float(visible.mean()) >= _RING_IN_VIEW
                is_missed = is_in_view and not self._seen[identity].any()
                visible = np.full(len(track), is_missed)
            else:
                visible = visible & ~self._seen[identity]
            if visible.any():
                self.tracks[identity] = missed(track, visible, weight, self._settings)

    def prolong(self, matches: list[Match], claimed: list[BoolArray]) -> None:
        """Put what lines show beyond the ends of their elements behind them."""
        moved = dict.fromkeys(self.tracks, 0)
        for match in matches:
            vertices = match.overlap.vertices + moved[match.track]
            self.tracks[match.track], claimed[match.measured], shift = prolonged(
                self.tracks[match.track],
                self._lines[match.measured],
                replace(match.overlap, vertices=vertices),
                claimed[match.measured],
                self._settings,
            )
            moved[match.track] += shift

    def give_birth(self, claimed: list[BoolArray]) -> None:
        """Begin elements with what is long enough and belongs to none that is known."""
        for line, taken in zip(self._lines, claimed, strict=True):
            for run in runs_of(~taken, closed=False):
                if len(run) < 2:
                    continue
                rest = line.take(run)
                if rest.length_m >= self._settings.min_length_m and self._is_new(rest):
                    self._born.append(rest)

    def _is_new(self, line: Track) -> bool:
        """Tell whether a line lies off all known elements of its category."""
        for track in self.tracks.values():
            if track.category != line.category:
                continue
            if (line.low - 1.0 > track.high).any() or (track.low - 1.0 > line.high).any():
                continue
            distances = feet_on_line(line.xy, track.loop).distance
            if float(np.median(distances)) < self._settings.min_gate_m:
                return False
        return True

    def give_up(self) -> int:
        """Remove what is no longer believed in, and add what was born; returns how many went."""
        num_removed = 0
        for identity, track in list(self.tracks.items()):
            pieces = survivors(track, self._settings)
            if pieces and pieces[0] is track:
                continue
            del self.tracks[identity]
            num_removed += not pieces
            for index, piece in enumerate(pieces):
                new_id = identity if index == 0 else self._new_id()
                self.tracks[new_id] = replace(piece, id=new_id)
        for track in self._born:
            new_id = self._new_id()
            self.tracks[new_id] = replace(track, id=new_id)
        self.num_born = len(self._born)
        return num_removed
