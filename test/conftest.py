"""Where the tests find the repository, the golden numbers and the small pieces of real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def _shared_folder(variable: str, default: str) -> Path:
    given = os.environ.get(variable)
    folder = Path(given) if given else REPOSITORY.parent / 'shared' / default
    if not folder.is_dir():
        pytest.skip(f"{variable} is not set to a folder and the default '{folder}' does not exist")
    return folder


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """The root of the checkout the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Expected numbers computed by the peers' own code (`GSMAP_GOLDEN`)."""
    return _shared_folder('GSMAP_GOLDEN', 'golden')


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """Small pieces of real data (`GSMAP_DATA`)."""
    return _shared_folder('GSMAP_DATA', 'data')
