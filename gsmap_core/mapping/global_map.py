"""The persistent map of where the vehicle has been: local maps in, one probabilistic map out.

Elements near the vehicle are in memory; tiles that it has left are on disk (`store`). Nothing here
knows where local maps come from: the map builder node and offline commands use it alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsmap_core.calibration import Calibration
from gsmap_core.errors import DataError
from gsmap_core.mapping.frame_update import FrameUpdate
from gsmap_core.mapping.measurement import measurements_of
from gsmap_core.mapping.settings import FusionSettings
from gsmap_core.mapping.store import StoreState, TileStore
from gsmap_core.mapping.tiles import (
    Tile,
    cut_at_borders,
    distance_to_tile,
    rejoined,
    tiles_around,
    tiles_of,
)
from gsmap_core.mapping.track import Track, tidied
from gsmap_core.mapping.upkeep import all_strung_together, put_in_order
from gsmap_core.structures import FloatArray, MapElement, PerceptionRange, VectorMap

#: Identities are int32 in markers.
_MAX_ID = 2**31 - 1


@dataclass(frozen=True)
class Integration:
    """What a local map did.

    Args:
        num_measured: elements of the local map that were used.
        num_matched: of those, known elements were updated with so many.
        num_born: new elements, not confirmed yet.
        num_removed: elements that were given up.
        weight: share that the frame counted by.
    """

    num_measured: int
    num_matched: int
    num_born: int
    num_removed: int
    weight: float


class GlobalMap:
    """Fuses local maps recursively. Not safe to use from several threads at once.

    Args:
        settings: of the fusion; None: the default.
        calibration: of the model whose maps are fused; None: its sigmas are taken as they are.
        folder: where tiles are kept; what is there already is the map to go on with. None: all in
            memory, nothing is kept.

    Raises:
        DataError: the folder cannot be used, see `TileStore`.
    """

    def __init__(
        self,
        settings: FusionSettings | None = None,
        calibration: Calibration | None = None,
        folder: Path | str | None = None,
    ) -> None:
        self.settings = settings or FusionSettings()
        self.calibration = calibration or Calibration()
        self._tracks: dict[int, Track] = {}
        self._dirty: set[Tile] = set()
        self._loaded: set[Tile] = set()
        self._store = None if folder is None else TileStore(folder, self.settings.tile_size_m)
        state = StoreState() if self._store is None else self._store.state
        self._next_id = state.next_id
        self._stamp_ns = state.stamp_ns
        self._position = None if state.position is None else np.array(state.position)
        self._counted_at: FloatArray | None = None
        self._known_tiles: dict[int, tuple[Track, set[Tile]]] = {}
        self.num_frames = 0
        if self._position is not None:
            self._load_around(self._position)

    # ------------------------------------------------------------------ fusing
    def integrate(self, local_map: VectorMap) -> Integration:
        """Fuse one local map.

        Args:
            local_map: in the ego frame, with its pose in the map frame.

        Raises:
            DataError: it is in another frame, or has no pose.
        """
        pose = local_map.map_from_base
        if local_map.reference != 'ego' or pose is None:
            raise DataError(
                f"local map at {local_map.stamp_ns} ns is in the '{local_map.reference}' frame "
                f'{"without" if pose is None else "with"} a pose; expected the ego frame and '
                'map_from_base'
            )
        settings = self.settings
        weight = self._weight(pose[:2, 3])
        self._move_to(pose[:2, 3].copy())
        measured = measurements_of(local_map, pose, settings, self.calibration, weight)
        # What is beyond the active radius for once must not be written over.
        self._load(set().union(*(tiles_of(track, settings.tile_size_m) for track in measured)))
        known = self._near(measured, pose, local_map.range)
        frame = FrameUpdate(settings, measured, {track.id: track for track in known}, self._new_id)
        num_matched = frame.fuse_rings()
        matches, claimed = frame.update_lines()
        frame.note_missed(pose, local_map.range, weight)
        frame.prolong(matches, claimed)
        frame.give_birth(claimed)
        num_removed = frame.give_up()
        self._replace_near({track.id: track for track in known}, frame.tracks)
        self._stamp_ns = local_map.stamp_ns
        self.num_frames += 1
        num_matched += len({match.measured for match in matches})
        return Integration(len(measured), num_matched, frame.num_born, num_removed, weight)

    def start_submap(self) -> None:
        """Go on after a break (the clock or the pose jumped): what is not confirmed is dropped."""
        self._counted_at = None
        for track in list(self._tracks.values()):
            if track.confirmed_span(self.settings) is None:
                self._remove(track)

    def _weight(self, position: FloatArray) -> float:
        """Return the share that a frame at a place counts by."""
        limit = self.settings.decorrelation_m
        before, self._counted_at = self._counted_at, position.copy()
        if before is None or limit == 0:
            return 1.0
        moved = float(np.linalg.norm(position - before))
        return float(np.clip(moved / limit, self.settings.min_weight, 1.0))

    def _near(
        self, measured: list[Track], pose: FloatArray, extent: PerceptionRange
    ) -> list[Track]:
        """Return the elements that this frame may say something about."""
        corners = np.array(
            [(x, y) for x in (extent.x_min, extent.x_max) for y in (extent.y_min, extent.y_max)]
        )
        places = [corners @ pose[:2, :2].T + pose[:2, 3], *(track.xy for track in measured)]
        every = np.concatenate(places)
        reach = self.settings.max_gate_m + 2 * self.settings.spacing_m
        low, high = every.min(axis=0) - reach, every.max(axis=0) + reach
        return [
            track
            for track in self._tracks.values()
            if (track.low <= high).all() and (track.high >= low).all()
        ]

    def _replace_near(self, before: dict[int, Track], after: dict[int, Track]) -> None:
        """Put the elements near the vehicle in order and take them over."""
        changed: set[int] = set()
        tidy = []
        for identity, track in after.items():
            if before.get(identity) is not track:
                changed.add(identity)
                kept = tidied(track, self.settings.spacing_m)
                if kept is not None:
                    tidy.append(kept)
            else:
                tidy.append(track)
        ordered, _ = put_in_order(tidy, changed, self.settings)
        now = {track.id: track for track in ordered}
        for identity, track in before.items():
            if now.get(identity) is not track:
                self._remove(track)
        for identity, track in now.items():
            if before.get(identity) is not track:
                self._add(track)

    # ------------------------------------------------------------------ what is in it
    @property
    def num_elements(self) -> int:
        """Confirmed elements in memory."""
        return sum(
            track.confirmed_span(self.settings) is not None for track in self._tracks.values()
        )

    @property
    def num_candidates(self) -> int:
        """Elements in memory that are not confirmed (yet)."""
        return len(self._tracks) - self.num_elements

    @property
    def num_vertices(self) -> int:
        """Vertices in memory."""
        return sum(len(track) for track in self._tracks.values())

    @property
    def num_tiles(self) -> int:
        """Tiles in memory that hold something."""
        return len(set().union(*(self._tiles(track) for track in self._tracks.values())))

    @property
    def num_tiles_on_disk(self) -> int:
        """Tiles on disk."""
        return 0 if self._store is None else len(self._store.tiles)

    @property
    def stamp_ns(self) -> int:
        """Stamp of the newest frame in the map [ns]."""
        return self._stamp_ns

    def to_vector_map(self) -> VectorMap:
        """Return the confirmed elements in memory, in the map frame; by identity."""
        return self._as_map(self._tracks.values())

    def whole_map(self) -> VectorMap:
        """Return the confirmed elements of all tiles, those on disk included.

        Raises:
            DataError: a tile on disk is damaged.
        """
        if self._store is None:
            return self.to_vector_map()
        away = [t for tile in self._store.tiles - self._loaded for t in self._store.read(tile)]
        return self._as_map(_together([*self._tracks.values(), *away], self.settings))

    def _as_map(self, tracks: Iterable[Track]) -> VectorMap:
        return fused_map(tracks, self.settings, self._stamp_ns, self._extent())

    def _extent(self) -> PerceptionRange | None:
        """Return the area of the tiles in memory; None while there is none."""
        tiles = np.array(sorted(self._loaded), dtype=np.float64).reshape(-1, 2)
        if not len(tiles):
            return None
        size = self.settings.tile_size_m
        low, high = tiles.min(axis=0) * size, (tiles.max(axis=0) + 1) * size
        return PerceptionRange(float(low[0]), float(high[0]), float(low[1]), float(high[1]))

    def reset(self) -> None:
        """Forget everything, on disk as well."""
        self._tracks.clear()
        self._dirty.clear()
        self._known_tiles.clear()
        self._counted_at = None
        if self._store is not None:
            self._store.clear(self._state(self._store.state.revision + 1))

    def replace_with(self, elements: Iterable[MapElement], stamp_ns: int = 0) -> int:
        """Put the elements of a saved map in the place of everything.

        They count as confirmed. Elements without covariance get the sigma of points.

        Args:
            elements: in the map frame.
            stamp_ns: of the map [ns].

        Returns:
            Number of elements.
        """
        tracks = [t for e in elements if (t := self._saved_track(e)) is not None]
        self._tracks, self._dirty, self._known_tiles = {}, set(), {}
        self._counted_at, self._stamp_ns = None, stamp_ns
        for track in tracks:
            self._add(replace(track, id=self._new_id()))
        if self._store is not None:
            # One commit: a kill leaves the old map or the new one.
            contents = self._contents(
                set().union(*(self._tiles(t) for t in self._tracks.values()))
            )
            gone: dict[Tile, list[Track]] = {tile: [] for tile in self._store.tiles}
            self._store.commit(gone | contents, self._state(self._store.state.revision + 1))
            self._tracks, self._dirty, self._loaded = {}, set(), set()
            if self._position is not None:
                self._load_around(self._position)
        return len(tracks)

    def _saved_track(self, element: MapElement) -> Track | None:
        settings = replace(self.settings, min_score=0.0, pose_sigma_m=0.0, pose_yaw_sigma_rad=0.0)
        everywhere = PerceptionRange(-1e9, 1e9, -1e9, 1e9)
        alone = VectorMap((element,), range=everywhere, reference='ego')
        # Its covariances were calibrated when it was fused.
        found = measurements_of(alone, np.eye(4), settings, Calibration(), 1.0)
        if not found:
            return None
        count = max(element.num_observations, settings.confirm_observations)
        return replace(
            found[0],
            hits=np.full(len(found[0]), count, dtype=np.int64),
            evidence=np.full(len(found[0]), settings.max_evidence),
        )

    # ------------------------------------------------------------------ memory and disk
    def commit(self) -> bool:
        """Write what changed to disk, all or nothing; returns whether there was anything.

        What `to_vector_map` says after it survives a kill.
        """
        if self._store is None or not self._dirty:
            return False
        contents = self._contents(self._dirty)
        self._store.commit(contents, self._state(self._store.state.revision + 1))
        self._dirty.clear()
        return True

    def close(self) -> None:
        """Write what changed and give the folder free."""
        if self._store is not None:
            self.commit()
            self._store.close()
            self._store = None

    def _state(self, revision: int) -> StoreState:
        place = self._position
        position = None if place is None else (float(place[0]), float(place[1]))
        return StoreState(revision, self._stamp_ns, self._next_id, position)

    def _contents(self, tiles: set[Tile]) -> dict[Tile, list[Track]]:
        """Return the pieces of the elements in memory in some tiles."""
        result: dict[Tile, list[Track]] = {tile: [] for tile in tiles}
        for track in self._tracks.values():
            if self._tiles(track) & tiles:
                for tile, piece in cut_at_borders(track, self.settings.tile_size_m):
                    if tile in result:
                        result[tile].append(piece)
        return result

    def _move_to(self, position: FloatArray) -> None:
        """Load the tiles around a place, and keep those far from it on disk only."""
        self._position = position
        size, radius = self.settings.tile_size_m, self.settings.active_radius_m
        far = {t for t in self._loaded if distance_to_tile(position, t, size) > radius + size}
        if far and self._store is not None:
            self._spill(far)
        self._load_around(position)

    def _load_around(self, position: FloatArray) -> None:
        settings = self.settings
        self._load(tiles_around(position, settings.active_radius_m, settings.tile_size_m))

    def _load(self, wanted: set[Tile]) -> None:
        """Take tiles into memory, with what is on disk of them."""
        missing = wanted - self._loaded
        self._loaded |= missing
        if self._store is None:
            return
        pieces = [
            piece for tile in missing & self._store.tiles for piece in self._store.read(tile)
        ]
        if not pieces:
            return
        # What is here already may go on in the tiles that have come.
        here, self._tracks = list(self._tracks.values()), {}
        for track in rejoined([*here, *pieces]):
            if track.id in self._tracks:
                # Pieces of one line whose middle is in a tile that is not here.
                track = replace(track, id=self._new_id())
                self._dirty |= self._tiles(track)
            self._tracks[track.id] = track

    def _spill(self, tiles: set[Tile]) -> None:
        """Write tiles and take what lies in them out of memory."""
        assert self._store is not None
        self.commit()
        for track in list(self._tracks.values()):
            if not self._tiles(track) & tiles:
                continue
            del self._tracks[track.id], self._known_tiles[track.id]
            pieces = cut_at_borders(track, self.settings.tile_size_m)
            here = rejoined([piece for tile, piece in pieces if tile not in tiles])
            for index, piece in enumerate(here):
                new_id = piece.id if index == 0 else self._new_id()
                self._tracks[new_id] = replace(piece, id=new_id)
                if index:
                    self._dirty |= self._tiles(self._tracks[new_id])
        self._loaded -= tiles

    def _tiles(self, track: Track) -> set[Tile]:
        known = self._known_tiles.get(track.id)
        if known is None or known[0] is not track:
            known = self._known_tiles[track.id] = (
                track,
                tiles_of(track, self.settings.tile_size_m),
            )
        return known[1]

    def _new_id(self) -> int:
        identity, self._next_id = self._next_id, self._next_id % _MAX_ID + 1
        return identity

    def _add(self, track: Track) -> None:
        self._tracks[track.id] = track
        self._dirty |= self._tiles(track)

    def _remove(self, track: Track) -> None:
        self._tracks.pop(track.id, None)
        self._dirty |= self._tiles(track)
        self._known_tiles.pop(track.id, None)


def fused_map(
    tracks: Iterable[Track],
    settings: FusionSettings,
    stamp_ns: int,
    extent: PerceptionRange | None = None,
) -> VectorMap:
    """Return the confirmed elements among some tracks as a map in the map frame.

    Args:
        tracks: elements.
        settings: of the fusion.
        stamp_ns: of the map [ns].
        extent: area that was looked at; it is widened to hold every vertex. None: just that.
    """
    ordered = sorted(tracks, key=lambda t: t.id)
    elements = [e for track in ordered if (e := track.to_element(settings)) is not None]
    corners = [e.vertices[:, :2] for e in elements]
    if extent is not None:
        corners.append(np.array([[extent.x_min, extent.y_min], [extent.x_max, extent.y_max]]))
    if not corners:
        corners.append(np.array([[-1.0, -1.0], [1.0, 1.0]]))
    every = np.concatenate(corners)
    low, high = every.min(axis=0), every.max(axis=0)
    return VectorMap(
        elements=tuple(elements),
        stamp_ns=stamp_ns,
        range=PerceptionRange(float(low[0]), float(high[0]), float(low[1]), float(high[1])),
        reference='map',
    )


def read_stored_map(folder: Path | str, settings: FusionSettings | None = None) -> VectorMap:
    """Return the confirmed elements of a map that a map builder keeps (or kept) in a folder.

    Raises:
        DataError: the folder holds no map, or a damaged one.
    """
    settings = settings or FusionSettings()
    store = TileStore(folder, read_only=True)
    pieces = [piece for tile in sorted(store.tiles) for piece in store.read(tile)]
    return fused_map(_together(pieces, settings), settings, store.state.stamp_ns)


def _together(pieces: list[Track], settings: FusionSettings) -> list[Track]:
    """Join pieces from all tiles; identities that occur twice are made different."""
    result, used = [], {piece.id for piece in pieces}
    seen: set[int] = set()
    for track in all_strung_together(rejoined(pieces), settings):
        identity = track.id
        if identity in seen:
            identity = max(used) + 1
            used.add(identity)
        seen.add(identity)
        # Without the vertices of the cuts.
        result.append(replace(tidied(track, settings.spacing_m) or track, id=identity))
    return result
