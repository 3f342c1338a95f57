"""The transforms of a recording, all known at once: look-ups at any stamp, answered as by tf2.

For files only. The live node has its own pose source with waiting, bounded buffers and errors of
its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gsmap_core.errors import TransformError
from gsmap_core.geometry.transforms import interpolate_transform, invert
from gsmap_core.structures import FloatArray

_log = logging.getLogger(__name__)


@dataclass
class _Edge:
    """Transforms from one child to its parent, by time once frozen."""

    parent: str
    is_static: bool
    stamps_ns: list[int] = field(default_factory=list)
    matrices: list[FloatArray] = field(default_factory=list)
    sorted_ns: npt.NDArray[np.int64] | None = None

    def freeze(self) -> npt.NDArray[np.int64]:
        """Sort by time, keeping the first of equal stamps as tf2 does; return the stamps [ns]."""
        if self.sorted_ns is None:
            unique, first = np.unique(np.array(self.stamps_ns, dtype=np.int64), return_index=True)
            self.matrices = [self.matrices[index] for index in first]
            self.stamps_ns = unique.tolist()
            self.sorted_ns = unique
        return self.sorted_ns

    def at(self, stamp_ns: int, child: str) -> FloatArray:
        """Return parent_from_child at a stamp.

        Raises:
            TransformError: the stamp lies outside the recorded samples.
        """
        if self.is_static:
            return self.matrices[-1]
        stamps = self.freeze()
        if not stamps[0] <= stamp_ns <= stamps[-1]:
            side, edge = (
                ('before the first', stamps[0])
                if stamp_ns < stamps[0]
                else ('after the last', stamps[-1])
            )
            raise TransformError(
                f"transform '{self.parent}' <- '{child}' asked at {stamp_ns} ns, "
                f'{abs(int(edge) - stamp_ns) / 1e9:.3f} s {side} recorded sample '
                f'({int(edge)} ns); use frames that the poses cover, or record /tf longer'
            )
        after = int(np.searchsorted(stamps, stamp_ns))
        if stamps[after] == stamp_ns:
            return self.matrices[after]
        start, end = int(stamps[after - 1]), int(stamps[after])
        fraction = (stamp_ns - start) / (end - start)
        return interpolate_transform(self.matrices[after - 1], self.matrices[after], fraction)


class TransformTree:
    """All transforms of one recording."""

    def __init__(self) -> None:
        self._edges: dict[str, _Edge] = {}

    def add(
        self,
        parent: str,
        child: str,
        stamp_ns: int,
        parent_from_child: FloatArray,
        is_static: bool = False,
    ) -> None:
        """Add one sample; frame ids may carry a leading slash."""
        parent, child = parent.lstrip('/'), child.lstrip('/')
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.is_static != is_static:
            if edge is not None:
                _log.warning(
                    "frame '%s' had the parent '%s' and now has '%s'; the later one is used",
                    child,
                    edge.parent,
                    parent,
                )
            edge = self._edges[child] = _Edge(parent, is_static)
        edge.stamps_ns.append(stamp_ns)
        edge.matrices.append(parent_from_child)
        edge.sorted_ns = None

    @property
    def frames(self) -> list[str]:
        """Every frame id, sorted."""
        return sorted(set(self._edges) | {edge.parent for edge in self._edges.values()})

    def is_connected(self, target: str, source: str) -> bool:
        """Return whether both frames are known and in one tree."""
        known = self.frames
        return target in known and source in known and self._chains(target, source) is not None

    def coverage_ns(self, target: str, source: str) -> tuple[int, int] | None:
        """Return the first and last stamp at which a look-up succeeds; None: static, always.

        Raises:
            TransformError: the frames are not connected.
        """
        up, down = self._require_chains(target, source)
        spans = [
            self._edges[child].freeze()
            for child in (*up, *down)
            if not self._edges[child].is_static
        ]
        if not spans:
            return None
        return max(int(s[0]) for s in spans), min(int(s[-1]) for s in spans)

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray:
        """Return target_from_source (4, 4) at a stamp: translation linear, rotation by slerp.

        Raises:
            TransformError: the frames are not connected, or a moving one is not recorded then.
        """
        up, down = self._require_chains(target, source)
        result = np.eye(4)
        for child in up:
            result = self._edges[child].at(stamp_ns, child) @ result
        target_side = np.eye(4)
        for child in down:
            target_side = self._edges[child].at(stamp_ns, child) @ target_side
        return invert(target_side) @ result

    def _require_chains(self, target: str, source: str) -> tuple[list[str], list[str]]:
        chains = self._chains(target, source)
        if chains is None:
            raise TransformError(
                f"frames '{target}' and '{source}' are not connected by /tf and /tf_static; "
                f'known frames: {", ".join(self.frames) or "none"}'
            )
        return chains

    def _ancestors(self, frame: str) -> list[str]:
        chain = [frame]
        while chain[-1] in self._edges:
            parent = self._edges[chain[-1]].parent
            if parent in chain:
                raise TransformError(
                    f"frame '{frame}' is its own ancestor by way of '{parent}'; "
                    'expected a tree: fix the publisher'
                )
            chain.append(parent)
        return chain

    def _chains(self, target: str, source: str) -> tuple[list[str], list[str]] | None:
        """Return the children to climb from source and from target to where they meet."""
        if target == source:
            return [], []
        from_source, from_target = self._ancestors(source), self._ancestors(target)
        for height, frame in enumerate(from_source):
            if frame in from_target:
                return from_source[:height], from_target[: from_target.index(frame)]
        return None
