"""The consistency-aware AP against the numbers of MapTracker's evaluator (folder `eval`)."""

import json

import pytest

from gsmap_core.evaluation.consistency import ConsistencyEvaluator

pytestmark = pytest.mark.golden

#: golden/eval/README.md, "Tolerances".
TOLERANCE = 1e-9


def compare(result, classes, expected):
    for name in classes:
        assert result.num_ground_truth[name] == expected['num_gt'][name]
        assert result.num_predictions[name] == expected['num_pred_counted'][name]
        for threshold in result.thresholds_m:
            key = f'{threshold:.1f}'
            assert (
                result.num_true_positives[name][threshold]
                == (expected['true_positives'][name][key])
            )
            assert result.ap[name][threshold] == pytest.approx(
                expected['AP'][name][key], abs=TOLERANCE
            ), (name, threshold)
        assert result.per_category[name] == pytest.approx(expected['AP_mean'][name], abs=TOLERANCE)
    assert result.mean_ap == pytest.approx(expected['mAP'], abs=TOLERANCE)


def test_golden_eval_consistency(golden_dir):
    found = 0
    for path in sorted((golden_dir / 'eval').glob('*.expected.json')):
        expected = json.loads(path.read_text())
        if 'maptracker' not in expected:
            continue
        found += 1
        content = json.loads(path.with_name(f'{path.name[:-14]}.input.json').read_text())
        classes = content['classes']
        evaluator = ConsistencyEvaluator(tuple(classes), tuple(expected['thresholds_m']))
        for scene in content['scenes']:
            for frame in scene['frames']:
                for name in classes:
                    sides = [[e for e in frame[s] if e['class'] == name] for s in ('pred', 'gt')]
                    evaluator.add_lines(
                        name,
                        [p['pts'] for p in sides[0]],
                        [p['score'] for p in sides[0]],
                        [p['track'] for p in sides[0]],
                        [g['pts'] for g in sides[1]],
                        [g['track'] for g in sides[1]],
                        scene=scene['scene'],
                    )
        result = evaluator.result()
        compare(result, classes, expected['maptracker']['consistent'])
        compare(result.plain, classes, expected['maptracker']['plain'])
    assert found
