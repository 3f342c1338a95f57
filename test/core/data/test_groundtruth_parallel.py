"""Ground truth of many drives: order, problems, and the same from worker processes."""

import numpy as np
from helpers.fake_truth import LineDrive

from gsmap_core.data.groundtruth_parallel import ground_truth_of


def test_frames_that_cannot_be_made_are_listed():
    drives = [LineDrive('b', 3, broken=1), LineDrive('a', 2)]
    first, second = ground_truth_of(drives)
    assert (first.name, second.name) == ('b', 'a')
    assert [frame is None for frame in first.frames] == [False, True, False]
    assert first.problems == ((1, 'b, frame 1: no map here'),)
    assert second.problems == ()


def test_workers_change_nothing(capsys):
    drives = [LineDrive(name, 2) for name in 'dbca']
    alone = list(ground_truth_of(drives))
    shared = list(ground_truth_of(drives, workers=2, progress=True))
    assert [result.name for result in shared] == list('dbca')
    for one, other in zip(alone, shared, strict=True):
        for here, there in zip(one.frames, other.frames, strict=True):
            np.testing.assert_array_equal(here.elements[0].vertices, there.elements[0].vertices)
    assert '8/8' in capsys.readouterr().err
