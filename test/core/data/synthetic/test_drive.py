"""Drives rendered on the fly agree with what goes through a bag."""

import numpy as np
import pytest

from gsmap_core.data.bag import open_bag, write_bag
from gsmap_core.data.drives import Drive
from gsmap_core.data.pose_tables import pose_table_of
from gsmap_core.data.synthetic import drive as module
from gsmap_core.data.synthetic.drive import SyntheticDrive, synthetic_drives
from gsmap_core.data.synthetic.recording import SyntheticRecording
from gsmap_core.errors import ConfigError, DataError

TEXT = 'synthetic:7,duration_s=1,rate_hz=2,image_width_px=64,setting=easy,jpeg_quality=100'


def test_same_frames_as_through_a_bag(tmp_path):
    (drive,) = synthetic_drives(TEXT)
    assert isinstance(drive, Drive)
    write_bag(SyntheticRecording(drive.recording.spec), tmp_path / 'drive.mcap')
    bag = open_bag(tmp_path / 'drive.mcap')
    assert len(bag) == len(drive) == 3
    for index in (0, 2):
        direct, read = drive.frame(index), bag.frame(index)
        assert direct.stamp_ns == read.stamp_ns and direct.sample_id == read.sample_id
        assert direct.camera_stamps_ns == read.camera_stamps_ns
        # The bag interpolates between poses that are 20 ms apart.
        assert np.abs(direct.map_from_base - read.map_from_base).max() < 2e-3
        assert np.abs(direct.base_from_cameras - read.base_from_cameras).max() < 2e-3
        for ours, theirs in zip(direct.images, read.images, strict=True):
            error = ours.astype(float) - theirs.astype(float)
            assert 10 * np.log10(255**2 / np.mean(error**2)) > 30  # JPEG is all that differs
        truth, read_truth = drive.ground_truth(index), bag.ground_truth(index)
        assert len(truth) == len(read_truth) > 0


def test_poses_are_known_without_rendering():
    """What learning from unlabelled drives reads; the same streets again with `variant`."""
    tables = [pose_table_of(synthetic_drives(TEXT + more)[0]) for more in ('', ',variant=2')]
    (drive,) = synthetic_drives(TEXT)
    for index, pose in enumerate(tables[0].map_from_base):
        np.testing.assert_allclose(pose, drive.frame(index).map_from_base, atol=1e-12)
    assert [table.name for table in tables] == ['town-easy-0007-d000', 'town-easy-0007-d000-v2']
    assert tables[0].place == tables[1].place == 'town-easy-0007'


def test_renderers_do_not_pile_up():
    for drive in synthetic_drives('synthetic:0-5,duration_s=1,image_width_px=32,setting=easy'):
        drive.frame(0)
    assert len(module._RENDERERS) == module.MAX_RENDERERS


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('synthetic:a', 'expected synthetic:FIRST-LAST'),
        ('synthetic:5-2', 'expected synthetic:FIRST-LAST'),
        ('synthetic:1,rate=2', "unknown key 'rate'.*rate_hz"),
        ('synthetic:1,rate_hz=fast', "'fast'; expected a number"),
        ('synthetic:1,lidar=maybe', 'expected true or false'),
        ('synthetic:1,rate_hz=50', 'rate_hz = 50.0; expected 2 to 12'),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        synthetic_drives(text)


def test_index_outside_the_drive():
    (drive,) = synthetic_drives(TEXT)
    assert isinstance(drive, SyntheticDrive)
    with pytest.raises(DataError, match='frame 3'):
        drive.frame(3)
