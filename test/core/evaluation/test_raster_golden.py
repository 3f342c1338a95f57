"""The raster AP against the numbers of MapVR's evaluation toolkit (folder `eval`)."""

import json
import math

import numpy as np
import pytest

from gsmap_core.categories import category_by_name
from gsmap_core.evaluation.raster import RasterEvaluator
from gsmap_core.evaluation.raster_masks import RasterCanvas
from gsmap_core.structures import MapElement, PerceptionRange, VectorMap

pytestmark = pytest.mark.golden

#: golden/eval/README.md, "Tolerances".
TOLERANCE = 1e-9
#: IoU is stored with 9 decimals.
IOU_TOLERANCE = 1e-9


def cases(golden_dir):
    found = sorted(path.name[:-11] for path in (golden_dir / 'eval').glob('*.input.json'))
    assert found
    return found


def load(golden_dir, case):
    folder = golden_dir / 'eval'
    content = json.loads((folder / f'{case}.input.json').read_text())
    expected = json.loads((folder / f'{case}.expected.json').read_text())['raster']
    frames = content.get('frames') or [f for s in content['scenes'] for f in s['frames']]
    limits = PerceptionRange(*content['range_m']['x'], *content['range_m']['y'])
    return content['classes'], frames, limits, expected


def of_class(elements, name):
    return [element for element in elements if element['class'] == name]


def close(value, expected):
    return math.isnan(value) if expected == -1 else abs(value - expected) <= TOLERANCE


def compare(result, classes, expected, case):
    for name in classes:
        for iou, value in result.ap[name].items():
            assert close(value, expected['AP_by_iou'][name][f'{iou:.2f}']), (case, name, iou)
        assert close(result.per_category[name], expected['AP'][name]), (case, name)
        for most, value in result.average_recall[name].items():
            assert close(value, expected['AR'][name][str(most)]), (case, name, most)
        assert close(result.frame_miou[name], expected['frame_mIoU'][name]), (case, name)
    assert close(result.line_ap, expected['line_all']['AP']), case
    assert close(result.line_average_recall, expected['line_all']['AR_100']), case
    assert close(result.mean_ap, expected['AP_mean_of_present_classes']), case


def test_golden_eval_raster(golden_dir):
    for case in cases(golden_dir):
        classes, frames, limits, expected = load(golden_dir, case)
        evaluator = RasterEvaluator(tuple(classes))
        canvas = RasterCanvas(limits, 'lidar')
        for index, frame in enumerate(frames):
            for name in classes:
                predictions = of_class(frame['pred'], name)
                iou = evaluator.add_lines(
                    name,
                    [p['pts'] for p in predictions],
                    [p['score'] for p in predictions],
                    [g['pts'] for g in of_class(frame['gt'], name)],
                    canvas,
                )
                if 'iou' in expected:
                    wanted = expected['iou'][name][index]
                    assert iou.size == np.size(wanted), (case, name, index)
                    if iou.size:
                        np.testing.assert_allclose(iou, wanted, rtol=0, atol=IOU_TOLERANCE)
        compare(evaluator.result(), classes, expected, case)


def as_maps(elements, limits, reference, with_scores):
    """Return a VectorMap of golden elements, turned into the ego frame where that is asked for."""
    if reference == 'ego':
        limits = PerceptionRange(limits.y_min, limits.y_max, -limits.x_max, -limits.x_min)
    made = []
    for element in elements:
        vertices = np.array(element['pts'], dtype=float)
        if reference == 'ego':
            vertices = np.stack([vertices[:, 1], -vertices[:, 0]], axis=1)
        if len(vertices) >= 2:
            category = category_by_name(element['class']).id
            score = element['score'] if with_scores else None
            made.append(MapElement(category, vertices, score=score))
    return VectorMap(tuple(made), range=limits, reference=reference)


@pytest.mark.parametrize('reference', ['lidar', 'ego'])
def test_golden_eval_raster_of_maps_in_either_frame(golden_dir, reference):
    """Whole maps give the same numbers in the lidar frame and turned into the ego frame."""
    for case in cases(golden_dir):
        classes, frames, limits, expected = load(golden_dir, case)
        evaluator = RasterEvaluator(tuple(classes))
        for frame in frames:
            evaluator.add(
                as_maps(frame['pred'], limits, reference, True),
                as_maps(frame['gt'], limits, reference, False),
            )
        result = evaluator.result()
        assert (result.reference, result.num_frames) == (reference, len(frames))
        compare(result, classes, expected, case)
