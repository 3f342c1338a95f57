"""What `gsmap info synthetic:...` and `gsmap synth --visibility` say: what vehicles hide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gsmap_core.data.synthetic.recording import DriveSpec

_SHARES = ('viewed_share', 'hidden_share', 'seen_before_share', 'seen_ever_share')


def describe_visibility(specs: Sequence[DriveSpec]) -> dict[str, Any]:
    """Return what vehicles hide in drives, each and as means; nothing is rendered.

    Raises:
        ConfigError: the rig of a drive is unusable.
    """
    from gsmap_core.data.synthetic.recording import SyntheticRecording
    from gsmap_core.data.synthetic.visibility import measure_visibility

    by_drive: dict[str, dict[str, Any]] = {}
    for spec in specs:
        found = asdict(measure_visibility(SyntheticRecording(spec)))
        hidden = found.pop('hidden_by_frame')
        shares = {name: round(found[name], 4) for name in _SHARES}
        by_drive[spec.name] = {
            'frames': found['frames'],
            'in_range_m': round(found['in_range_m'], 1),
            **shares,
            'hidden_least': round(min(hidden), 4),
            'hidden_most': round(max(hidden), 4),
        }
    means = {
        name: round(sum(drive[name] for drive in by_drive.values()) / len(by_drive), 4)
        for name in _SHARES
    }
    return {'drives': len(by_drive), **means, 'by_drive': by_drive}


def describe_synthetic(text: str) -> dict[str, Any]:
    """Return what vehicles hide in the drives that a text asks for (see `synthetic_specs`).

    Raises:
        ConfigError: the text is not of this form, or a value is not allowed.
    """
    from gsmap_core.data.synthetic.drive import synthetic_specs

    return {'source': text, **describe_visibility(synthetic_specs(text))}
