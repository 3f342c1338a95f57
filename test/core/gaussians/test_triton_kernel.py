"""The GPU kernel against the reference: on CUDA, and in Triton's interpreter where it installs."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gsmap_core.errors import ConfigError
from gsmap_core.gaussians import backends, triton_kernel
from gsmap_core.gaussians.rasterize import rasterize_gaussians
from gsmap_core.gaussians.unions import UNIONS
from gsmap_core.geometry.bev_grid import BevGrid
from gsmap_core.structures import PerceptionRange

#: Several blocks of cells in both directions, the last ones incomplete.
CANVAS = BevGrid(PerceptionRange(-9, 9, -6, 6), 37, 35)
OFFICIAL = BevGrid(PerceptionRange(-6, 6, -9, 9), 37, 35, 'official')


def compare(device: str, num_elements: int, num_places: int) -> None:
    """Assert that occupancies agree to 5e-6, and gradients to 2e-5 of the largest."""
    for union in UNIONS:
        for grid in (CANVAS, OFFICIAL):
            results = []
            for way in ('reference', 'triton'):
                generator = torch.Generator().manual_seed(0)
                shape = (num_elements, num_places)
                values = (
                    torch.randn(*shape, 2, generator=generator) * 5,
                    torch.rand(*shape, 2, generator=generator) * 1.5 + 0.1,
                    torch.randn(shape, generator=generator) * 3,
                )
                for value in values:
                    value[:, -1] = value[:, 0]  # a ring repeats its first Gaussian
                leaves = [value.to(device).requires_grad_() for value in values]
                occupancy = rasterize_gaussians(*leaves, grid, union, way)
                weights = torch.arange(occupancy.numel(), device=device).mul(0.7).sin()
                (occupancy * weights.view_as(occupancy)).sum().backward()
                results.append([occupancy.detach(), *(leaf.grad for leaf in leaves)])
            reference, found = results
            torch.testing.assert_close(found[0], reference[0], atol=5e-6, rtol=0)
            for first, second in zip(found[1:], reference[1:], strict=True):
                largest = max(float(second.abs().max()), 1.0)
                torch.testing.assert_close(first, second, atol=2e-5 * largest, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_kernel_equals_reference_on_cuda() -> None:
    assert backends.triton_problem(torch.device('cuda')) == ''
    assert backends.choose_backend('auto', torch.zeros(1, device='cuda')) == 'triton'
    compare('cuda', 9, 20)
    compare('cuda', 1, 2)
    empty = torch.zeros(0, 4, 2, device='cuda'), torch.zeros(0, 4, device='cuda')
    assert rasterize_gaussians(empty[0], empty[0], empty[1], CANVAS).shape == (0, 37, 35)


@pytest.mark.skipif(
    importlib.util.find_spec('triton') is None, reason='triton is not installed (CPU build)'
)
def test_kernel_equals_reference_in_the_interpreter(repo_root: Path) -> None:
    """In a process of its own: the variable must be set before the kernels are defined."""
    code = (
        'import importlib.util\n'
        f'spec = importlib.util.spec_from_file_location("kernel_test", {__file__!r})\n'
        'module = importlib.util.module_from_spec(spec)\n'
        'spec.loader.exec_module(module)\n'
        'module.compare("cpu", 2, 3)\n'
        'print("compared")\n'
    )
    environment = {**os.environ, 'TRITON_INTERPRET': '1'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=repo_root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and 'compared' in done.stdout, done.stderr


def test_cpu_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, '_tried', {})
    inputs = torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1)
    with pytest.raises(ConfigError, match="'triton' does not run here: .+; use 'auto'"):
        rasterize_gaussians(*inputs, CANVAS, backend='triton')
    assert backends.choose_backend('auto', inputs[0]) == 'fast'


def test_double_precision_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, '_try_triton', lambda device: '')
    monkeypatch.setattr(backends, '_tried', {})
    with pytest.raises(ConfigError, match='float32 and the Gaussians are torch.float64'):
        backends.choose_backend('triton', torch.zeros(1, dtype=torch.float64))


def test_a_failure_is_tried_once_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A compiler that is missing, on a device that would otherwise do."""
    calls = []

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        raise RuntimeError('no C compiler found')

    monkeypatch.setattr(triton_kernel, 'IMPORT_PROBLEM', '')
    monkeypatch.setattr(triton_kernel, 'rasterize_triton', fail)
    monkeypatch.setattr(backends, '_tried', {})
    # Values stay on the CPU; only the decision is looked at.
    ones = torch.ones
    monkeypatch.setattr(torch, 'ones', lambda *size, device: ones(*size))
    with caplog.at_level(logging.WARNING):
        problems = {backends.triton_problem(torch.device('cuda', 0)) for _ in range(3)}
    assert problems == {'RuntimeError: no C compiler found'}
    assert len(calls) == len(caplog.records) == 1
    assert 'no C compiler found' in caplog.text
