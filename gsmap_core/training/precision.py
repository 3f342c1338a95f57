"""Number formats of the forward pass."""

from __future__ import annotations

import torch

#: What autocast computes in; the decoder, the geometry and the losses stay in float32 in any case.
HALF_TYPES: dict[str, torch.dtype] = {'bf16': torch.bfloat16, 'fp16': torch.float16}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass.

    Args:
        device: where the model is.
        precision: `fp32`, `bf16` or `fp16`.
    """
    half = HALF_TYPES.get(precision)
    # A dtype has to be named even where nothing is cast.
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)
