"""Which rasteriser runs where. The GPU kernel is loaded on first use, a failure is remembered."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from gsmap_core.errors import ConfigError
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange

BACKENDS = ('auto', 'reference', 'fast', 'triton')

logger = logging.getLogger(__name__)
#: Device -> why the kernel does not run there; empty: it runs. One trial per process and device.
_tried: dict[torch.device, str] = {}


def choose_backend(backend: str, centers: Tensor) -> str:
    """Return `reference`, `fast` or `triton` for Gaussians of this device and dtype.

    Raises:
        ConfigError: the backend is unknown, or `triton` was asked for where it does not run.
    """
    if backend not in BACKENDS:
        raise ConfigError(
            f"rasterisation backend '{backend}' is unknown; expected one of {', '.join(BACKENDS)}"
        )
    if backend == 'auto':
        wanted = centers.device.type == 'cuda' and centers.dtype == torch.float32
        return 'triton' if wanted and not triton_problem(centers.device) else 'fast'
    if backend == 'triton':
        problem = triton_problem(centers.device)
        if centers.dtype != torch.float32:
            problem = f'it computes in float32 and the Gaussians are {centers.dtype}'
        if problem:
            raise ConfigError(
                f"rasterisation backend 'triton' does not run here: {problem}; use 'auto' or "
                "'fast'"
            )
    return backend


def triton_problem(device: torch.device) -> str:
    """Return why the GPU kernel does not run on a device; empty where it runs.

    The first call per device imports Triton, compiles the kernels and runs them on two cells; what
    went wrong is logged once and remembered.
    """
    if device not in _tried:
        _tried[device] = problem = _try_triton(device)
        if problem and device.type == 'cuda':
            logger.warning(
                'Gaussians are drawn by plain PyTorch on %s, not by the GPU kernel: %s',
                device,
                problem,
            )
    return _tried[device]


def _try_triton(device: torch.device) -> str:
    """Load and run the kernel once; return what went wrong."""
    from gsmap_core.gaussians import triton_kernel

    if triton_kernel.IMPORT_PROBLEM:
        return triton_kernel.IMPORT_PROBLEM
    if device.type != 'cuda' and not triton_kernel.is_interpreted():
        return f"it needs a CUDA device and the Gaussians are on '{device}'"
    grid = BevGrid(PerceptionRange(-1.0, 1.0, -0.5, 0.5), 2, 1)
    # Anything may fail here: the driver, the compiler that Triton calls, its cache folder.
    try:
        with torch.enable_grad():
            pair = torch.ones(1, 1, 2, device=device).requires_grad_()
            angle = torch.ones(1, 1, device=device).requires_grad_()
            triton_kernel.rasterize_triton(
                pair, pair, angle, grid, 'probabilistic'
            ).sum().backward()
            gradients = [leaf.grad for leaf in (pair, angle) if leaf.grad is not None]
            finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return '' if finite else 'a trial gave gradients that are not finite'
