"""Metadata of checkpoints: read without torch, rewritten with every tensor as it was."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from gsmap_core.calibration import Calibration, read_calibration, store_calibration
from gsmap_core.checkpoint_header import read_header_metadata, write_header_metadata
from gsmap_core.errors import CheckpointError, DataError

TENSORS = {
    'a.weight': np.arange(7, dtype=np.float32) / 3,
    'b': np.array([[1, -2], [3, 4]], dtype=np.int64),
    'empty': np.zeros((0, 3), dtype=np.float16),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'model.safetensors'
    save_file(TENSORS, path, metadata={'format': 'x', 'ü': 'ö'})
    return path


def data_of(path: Path) -> bytes:
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], 'little') :]


def test_entries_are_added_and_tensors_stay_bit_for_bit(checkpoint: Path) -> None:
    before = data_of(checkpoint)
    os.chmod(checkpoint, 0o640)
    for text in ('short', 'long ' * 100, ''):
        write_header_metadata(checkpoint, {'new': text})
        assert read_header_metadata(checkpoint) == {'format': 'x', 'ü': 'ö', 'new': text}
        assert data_of(checkpoint) == before
        assert stat.S_IMODE(checkpoint.stat().st_mode) == 0o640
        # The library that others read it with agrees.
        with safe_open(checkpoint, framework='numpy') as file:
            assert file.metadata()['new'] == text
            for name, tensor in TENSORS.items():
                found = file.get_tensor(name)
                assert found.dtype == tensor.dtype and found.tobytes() == tensor.tobytes()
    assert [path.name for path in checkpoint.parent.iterdir()] == ['model.safetensors']


def test_a_write_that_fails_keeps_the_file(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = checkpoint.read_bytes()

    def full(*_: object) -> None:
        raise OSError('no space left on device')

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(CheckpointError, match='no space left'):
        write_header_metadata(checkpoint, {'new': 'x'})
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ['model.safetensors']


@pytest.mark.parametrize('content', [b'', b'\x05', b'\xff' * 40, b'\x02\0\0\0\0\0\0\0[]'])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'x.safetensors'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match='not a safetensors file'):
        read_header_metadata(path)


def test_truncated_and_missing_files_are_refused(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match='truncated'):
        write_header_metadata(checkpoint, {'new': 'x'})
    assert checkpoint.read_bytes() == content[:-1]
    with pytest.raises(CheckpointError, match='is not there'):
        read_header_metadata(checkpoint.with_name('y.safetensors'))


def test_a_calibration_comes_back(checkpoint: Path) -> None:
    assert read_calibration(checkpoint) is None
    for given in (
        Calibration(1.37, 0.25, 0.02, 1234, 'two drives'),
        Calibration(0.9, None, 0.0, 5, ''),
    ):
        store_calibration(checkpoint, given)
        assert read_calibration(checkpoint) == given
    write_header_metadata(checkpoint, {'calibration': '{"sigma_factor": "wide"}'})
    with pytest.raises(DataError, match='--store-calibration'):
        read_calibration(checkpoint)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'sigma_factor': 0.0}, 'sigma_factor is 0'),
        ({'sigma_factor': float('nan')}, 'sigma_factor is nan'),
        ({'point_sigma_m': -1.0}, 'point_sigma_m is -1'),
        ({'point_sigma_per_m': -0.1}, 'point_sigma_per_m is -0.1'),
    ],
)
def test_impossible_numbers_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Calibration(**values)  # type: ignore[arg-type]


def test_no_torch_is_needed_to_read_it(checkpoint: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        'from gsmap_core.calibration import read_calibration\n'
        'import gsmap_core.mapping.global_map\n'
        f'assert read_calibration({str(checkpoint)!r}) is None\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
