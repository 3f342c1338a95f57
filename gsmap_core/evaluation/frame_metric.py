"""What every metric over frames has: categories that are scored, frames that were seen, scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from gsmap_core.categories import PAPER_CATEGORIES, category_by_name
from gsmap_core.evaluation.frames import FrameLog, range_dict
from gsmap_core.structures import PerceptionRange


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """The frames that a result is about.

    Args:
        num_frames: frames evaluated.
        reference: frame that the elements were given in.
        range: extent that the maps cover [m]; None: no frame was seen.
    """

    num_frames: int = 0
    reference: str = 'ego'
    range: PerceptionRange | None = None

    def frames_to_dict(self) -> dict[str, Any]:
        """Return the frames as plain values for JSON."""
        return {
            'reference': self.reference,
            'range_m': range_dict(self.range),
            'num_frames': self.num_frames,
        }


@dataclass
class FrameEvaluator:
    """Collects frames one by one, and tells them by scene.

    Args:
        categories: names of the categories to score; elements of others are left out.

    Raises:
        ConfigError: a category is unknown.
    """

    categories: tuple[str, ...] = PAPER_CATEGORIES
    _frames: FrameLog = field(init=False, repr=False, default_factory=FrameLog)

    def __post_init__(self) -> None:
        """Validate the settings."""
        self.categories = tuple(self.categories)
        for name in self.categories:
            category_by_name(name)

    @property
    def scenes(self) -> tuple[str, ...]:
        """Scenes seen so far, in order."""
        return self._frames.scenes

    def merge(self, other: Self) -> None:
        """Add the frames of an evaluator with the same settings; they follow those here.

        Raises:
            DataError: its frames have another reference or range.
        """
        self._frames.merge(other._frames)

    def _seen(self, scene: str | None) -> dict[str, Any]:
        """Return what a `FrameResult` says of the frames of a scene; None: of all."""
        log = self._frames
        return {
            'num_frames': log.count(scene),
            'reference': log.reference,
            'range': log.range,
        }
