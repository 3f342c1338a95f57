"""Finds the files that travel with the package: message definitions, configurations, weights.

They lie in the checkout (or an editable install), else under `share/gsmap_ros` of the installation
prefix.
"""

import os
import sys
from pathlib import Path

from gsmap_core.errors import CheckpointError, EnvironmentProblemError

_PACKAGE = Path(__file__).resolve().parent
#: The checkpoint that is used when none is named.
DEFAULT_WEIGHTS = 'gsmap_live_tiny'


def _share_candidates() -> list[Path]:
    candidates = [_PACKAGE.parent]
    # .../<prefix>/lib/pythonX.Y/site-packages/gsmap_core -> <prefix>/share/gsmap_ros
    candidates += [parent / 'share' / 'gsmap_ros' for parent in _PACKAGE.parents]
    candidates += [
        Path(prefix) / 'share' / 'gsmap_ros'
        for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
        if prefix
    ]
    candidates.append(Path(sys.prefix) / 'share' / 'gsmap_ros')
    return candidates


def resource_dir(name: str) -> Path:
    """Return the folder `msg`, `config` or `launch`.

    Raises:
        EnvironmentProblemError: it is in none of the known places; the message lists them.
    """
    candidates = _share_candidates()
    for base in candidates:
        # The marker keeps an unrelated folder of the same name (a user's own `config`) from being
        # taken.
        if (base / name).is_dir() and (base / 'package.xml').is_file():
            return base / name
    tried = ', '.join(str(base / name) for base in candidates)
    raise EnvironmentProblemError(
        f"folder '{name}' of gsmap_ros not found; looked at {tried}; reinstall the package"
    )


def weights_dir() -> Path:
    """Return the folder of the shipped checkpoints."""
    return _PACKAGE / 'weights'


def resolve_weights(name_or_path: str | Path = '') -> Path:
    """Find a checkpoint: an existing file, else one that is shipped with the package.

    Args:
        name_or_path: path of a `.safetensors` file, or the name of a shipped checkpoint; empty:
            the default one.

    Raises:
        CheckpointError: neither exists; the message lists the shipped names.
    """
    text = str(name_or_path) or DEFAULT_WEIGHTS
    path = Path(text)
    if path.is_file():
        return path
    shipped = weights_dir() / f'{text}.safetensors'
    if shipped.is_file():
        return shipped
    names = ', '.join(sorted(file.stem for file in weights_dir().glob('*.safetensors'))) or 'none'
    raise CheckpointError(
        f"checkpoint '{text}' not found: no such file, and the shipped ones are {names}; give the "
        'path of a .safetensors file that gsmap train wrote'
    )
