"""Reading tensors from files of other programs, without running what is in them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from gsmap_core.errors import CheckpointError


def read_tensor_file(path: Path | str, what: str, expected: str) -> dict[str, Tensor]:
    """Read a `.safetensors` file, or a `.pth` file without running its code.

    Args:
        path: the file. A `.pth` file holds names to tensors, directly or under `state_dict`;
            what lies beside `state_dict` is ignored.
        what: what the file is called in errors, e.g. `backbone weights`.
        expected: what should have been given.

    Returns:
        Names, as in the file, to tensors on the CPU.

    Raises:
        CheckpointError: the file is missing or is not a mapping of tensors.
    """
    try:
        if str(path).endswith('.safetensors'):
            return load_file(path)
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{what} '{path}' do not exist; give {expected}") from None
    except Exception as error:  # what the readers raise on foreign bytes is not documented
        raise CheckpointError(
            f"{what} '{path}' cannot be read ({type(error).__name__}: {error}); expected "
            f'{expected}'
        ) from None
    if isinstance(content, dict) and isinstance(content.get('state_dict'), dict):
        content = content['state_dict']
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CheckpointError(f"{what} '{path}' hold no mapping of tensors; expected {expected}")
    return dict(content)
