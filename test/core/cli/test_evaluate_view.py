"""`gsmap evaluate` and `gsmap view` as a user calls them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gsmap_core.cli.main import main
from gsmap_core.data.bag import open_bag
from gsmap_core.mapfile import write_map_file
from gsmap_core.structures import MapElement, VectorMap

sys.path.insert(0, str(Path(__file__).parent))
from tiny_drive import TinyDrive


def line(y, score=None, category=0):
    return MapElement(category, np.array([[0.0, y], [10.0, y]]), score=score)


@pytest.fixture
def files(tmp_path):
    truth, predicted = [], []
    for index, (scene, offset) in enumerate((('one', 0.0), ('two', 0.8))):
        pose = np.eye(4)
        pose[0, 3] = 5.0 * index
        common = {'stamp_ns': index, 'sample_id': f'f{index}', 'scene': scene}
        truth.append(VectorMap((line(3.0), line(-3.0, None, 2)), map_from_base=pose, **common))
        predicted.append(
            VectorMap((line(3.0 + offset, 0.9), line(-3.0, 0.8, 2)), map_from_base=pose, **common)
        )
    paths = tmp_path / 'pred.map.json', tmp_path / 'gt.map.json'
    write_map_file(paths[0], predicted)
    write_map_file(paths[1], truth)
    return [str(path) for path in paths]


def test_table_states_frame_range_and_scenes(files, tmp_path, capsys):
    assert main(['evaluate', *files, '--out', str(tmp_path / 'report')]) == 0
    text = capsys.readouterr().out
    assert "reference frame 'ego', x [-30, 30] m, y [-15, 15] m" in text
    # Divider: one of two found at 0.5 m (AP 1/2), both at 1.0 and 1.5 m.
    rows = {row.split()[0]: row.split()[1:] for row in text.splitlines() if row.strip()}
    assert rows['divider'] == ['0.500', '1.000', '1.000', '0.833', '2', '2']
    assert rows['boundary'] == ['1.000', '1.000', '1.000', '1.000', '2', '2']
    assert rows['ped_crossing'] == ['0.000', '0.000', '0.000', '0.000', '0', '0']
    assert rows['mean'][3] == '0.611'
    assert rows['one'] == ['1', '1.000', '0.000', '1.000', '0.667']
    assert rows['two'] == ['1', '0.667', '0.000', '1.000', '0.556']
    assert 'no ground truth of ped_crossing' in text
    written = sorted(path.name for path in (tmp_path / 'report').iterdir())
    assert written == ['chamfer.json', 'chamfer.txt', 'precision_recall.png']
    assert cv2.imread(str(tmp_path / 'report' / 'precision_recall.png')) is not None
    stored = json.loads((tmp_path / 'report' / 'chamfer.json').read_text())
    assert stored['mean_ap'] == pytest.approx(0.6111, abs=1e-4)


def test_json_is_one_object(files, capsys):
    arguments = ['--categories', 'divider', '--thresholds', '0.5', '1.0', '--json']
    assert main(['evaluate', *files, *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['mean_ap'] == pytest.approx(0.75)
    assert report['categories']['divider']['ap'] == {'0.5': 0.5, '1': 1.0}
    assert report['scenes']['two']['mean_ap'] == pytest.approx(0.5)
    assert report['reference'] == 'ego'


def test_raster_beside_chamfer(files, tmp_path, capsys):
    report = tmp_path / 'report'
    assert main(['evaluate', *files, '--metric', 'raster', '--out', str(report)]) == 0
    text = capsys.readouterr().out
    rows = {row.split()[0]: row.split()[1:] for row in text.splitlines() if row.strip()}
    # One divider is hit, the other is 0.8 m off: half of them found is 51 of 101 recalls.
    assert rows['divider'] == ['0.505'] * 7 + ['0.500', '0.500', '2', '2']
    assert rows['ped_crossing'] == ['-'] * 9 + ['0', '0']
    assert rows['mean'] == ['0.752', '4', '4']
    assert rows['two'] == ['1', '0.000', '-', '1.000', '0.500']
    assert "reference frame 'ego', x [-30, 30] m, y [-15, 15] m" in text
    assert 'no ground truth of ped_crossing: left out of the mean' in text
    written = sorted(path.name for path in report.iterdir())
    assert written == ['raster.json', 'raster.txt', 'raster_precision_recall.png']
    assert cv2.imread(str(report / 'raster_precision_recall.png')) is not None
    for both in (['--metric', 'chamfer,raster'], ['--metric', 'chamfer', '--metric', 'raster']):
        assert main(['evaluate', *both, *files, '--json']) == 0
        result = json.loads(capsys.readouterr().out)
        assert set(result) == {'chamfer', 'raster', 'outputs'}
        assert result['chamfer']['mean_ap'] == pytest.approx(0.6111, abs=1e-4)
        assert result['raster'] == json.loads((report / 'raster.json').read_text())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--thresholds', 'tiny'], "'tiny'; expected numbers in metres, or one of standard"),
        (['--worst', '2'], '--worst draws'),
        (['--worst', '2', '--out', 'x', '--metric', 'raster'], 'have chamfer among --metric'),
        (['--worst', '-1'], '--worst -1'),
        (['--weights', 'x.safetensors'], 'give --weights and --data together and no map files'),
        (['--workers', '0'], '0 workers; expected at least 1'),
        (['--metric', 'raster,iou'], "'iou': unknown; expected chamfer, raster"),
        (['--metric', 'iou'], "'iou': unknown; expected chamfer"),
        (['--protocol', 'coco'], "'coco': unknown; expected one of maptr"),
        (['--categories', 'kerb'], "'kerb': unknown"),
    ],
)
def test_wrong_options_are_named(files, capsys, arguments, message):
    assert main(['evaluate', *files, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_score_is_named(capsys):
    assert main(['evaluate']) == 2
    assert 'nothing to score; give PRED.map.json' in capsys.readouterr().err
    assert main(['evaluate', '--weights', 'x']) == 2
    assert 'give --weights and --data together' in capsys.readouterr().err


def test_every_metric_reports(files, tmp_path, capsys):
    names = ('consistency', 'bev_iou', 'geometry', 'stability')
    arguments = ['evaluate', *files, '--metric', ','.join(names), '--min-score', '0.85']
    report = tmp_path / 'report'
    assert main([*arguments, '--json']) == 0
    values = json.loads(capsys.readouterr().out)
    assert set(values) == {*names, 'outputs'}
    # As chamfer: one of two dividers lies 0.8 m off.
    assert values['consistency']['mean_ap'] == pytest.approx(0.6111, abs=1e-4)
    assert values['consistency']['linked'] == ['predictions', 'ground truth']
    # The boundaries (score 0.8) are below the least score.
    assert values['bev_iou']['per_category']['boundary'] == 0.0
    assert values['geometry']['categories']['divider']['lateral_error_m'] == pytest.approx(0.4)
    assert values['stability']['num_frame_pairs'] == 0
    assert values['geometry']['scenes']['two']['mean'] == pytest.approx(0.8)
    assert main([*arguments, '--out', str(report)]) == 0
    text = capsys.readouterr().out
    for title in ('Consistency-aware', 'IoU of the BEV', 'Lateral error', 'Temporal stability'):
        assert title in text
    written = {path.name for path in report.iterdir()}
    assert {f'{name}.{ending}' for name in names for ending in ('json', 'txt')} < written
    assert 'consistency_precision_recall.png' in written


def test_named_thresholds(files, capsys):
    arguments = ['evaluate', *files, '--thresholds', 'strict', '--categories', 'divider', '--json']
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['thresholds_m'] == [0.2, 0.5, 1.0]
    assert report['mean_ap'] == pytest.approx((0.5 + 0.5 + 1.0) / 3)


def test_worst_frames_are_drawn(files, tmp_path, capsys):
    report = tmp_path / 'report'
    arguments = ['evaluate', *files, '--out', str(report), '--worst', '1', '--json']
    assert main(arguments) == 0
    outputs = [Path(path) for path in json.loads(capsys.readouterr().out)['outputs']]
    pictures = [path for path in outputs if path.suffix == '.png' and 'worst' in path.name]
    assert [path.name for path in pictures] == ['worst_01_two_f1.png']
    assert cv2.imread(str(pictures[0])).shape[1] > 800


def test_bad_frames_are_errors_or_left_out(files, tmp_path, capsys):
    content = json.loads(Path(files[0]).read_text())
    content['frames'][1]['elements'][0]['vertices'] = [[0.0, float('nan')], [1.0, 1.0]]
    bad = tmp_path / 'bad.map.json'
    bad.write_text(json.dumps(content))
    assert main(['evaluate', str(bad), files[1]]) == 2
    error = capsys.readouterr().err
    assert f"{bad}: frame 1 (id 'f1'): element 0" in error and 'NaN' in error
    assert main(['evaluate', str(bad), files[1], '--bad-frames', 'skip', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['num_frames'] == 1 and report['mean_ap'] == pytest.approx(2 / 3)
    assert "frame 1 (id 'f1')" in report['left_out'][0]
    content['frames'][1]['elements'][0]['vertices'] = [[0.0, 0.0]]
    bad.write_text(json.dumps(content))
    assert main(['evaluate', files[0], str(bad), '--bad-frames', 'skip']) == 0
    assert '1 vertices; expected at least 2' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'reference': 'lidar'}, "frame 'f0': prediction is given in 'lidar'"),
        ({'range': {'x': [-50, 50], 'y': [-25, 25]}}, "frame 'f0': prediction covers"),
    ],
)
def test_mixed_frames_of_reference_name_file_and_frame(files, tmp_path, capsys, change, message):
    other = tmp_path / 'other.map.json'
    other.write_text(json.dumps({**json.loads(Path(files[0]).read_text()), **change}))
    assert main(['evaluate', str(other), files[1]]) == 2
    error = capsys.readouterr().err
    assert f'{other} against {files[1]}: ' in error and message in error


def test_other_frame_ids_name_file_and_frame(files, tmp_path, capsys):
    content = json.loads(Path(files[0]).read_text())
    content['frames'][0]['id'] = 'elsewhere'
    other = tmp_path / 'other.map.json'
    other.write_text(json.dumps(content))
    assert main(['evaluate', str(other), files[1]]) == 2
    error = capsys.readouterr().err
    assert str(other) in error and "predictions without ground truth: 'elsewhere'" in error


def test_swapped_files_are_noticed(files, capsys):
    assert main(['evaluate', *reversed(files)]) == 2
    assert "frame 'f0'" in (error := capsys.readouterr().err)
    assert 'swapped' in error


def test_view_draws_a_frame_and_a_drive(files, tmp_path, capsys):
    out = tmp_path / 'new' / 'frame.png'
    arguments = ['view', files[1], '--predictions', files[0], '--frame', '1']
    assert main([*arguments, '--out', str(out), '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == {'title': 'two · f1', 'elements': 2, 'out': str(out)}
    beside = cv2.imread(str(out))
    assert main(['view', files[1], '--frame', '1', '--out', str(out)]) == 0
    alone = cv2.imread(str(out))
    assert beside.shape[1] > 1.8 * alone.shape[1]
    assert main(['view', files[0], '--drive', '--out', str(out)]) == 0
    assert cv2.imread(str(out)) is not None


def test_view_names_what_is_wrong(files, tmp_path, capsys):
    assert main(['view', files[1], '--frame', '2']) == 2
    assert 'has 2 frames; expected 0 to 1' in capsys.readouterr().err
    assert main(['view', files[1], '--out', str(tmp_path / 'x.tiff')]) == 2
    assert 'expected a picture' in capsys.readouterr().err


def test_view_draws_a_bag_beside_predictions(tmp_path, capsys):
    bag = TinyDrive().write(tmp_path / 'tiny')
    drive = open_bag(bag)
    truth = drive.ground_truth(2)
    predicted = [replace(e, score=0.9) for e in truth.elements[:1]]
    path = tmp_path / 'pred.map.json'
    write_map_file(path, [replace(truth, elements=tuple(predicted))])
    out = tmp_path / 'frame.png'
    common = ['view', str(bag), '--out', str(out)]
    assert main([*common, '--frame', '2', '--predictions', str(path), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['elements'] == 1
    assert cv2.imread(str(out)).shape[1] == 1920
    assert main([*common, '--drive']) == 0
    assert main([*common, '--frame', '0']) == 0
    assert main([*common, '--frame', '1', '--predictions', str(path)]) == 2
    assert 'has no frame with id' in capsys.readouterr().err


def test_view_of_a_bag_is_a_page_and_a_film(tmp_path, capsys):
    bag = TinyDrive(num_frames=3).write(tmp_path / 'tiny')
    drive = open_bag(bag)
    truth = drive.ground_truth(1)
    path, out = tmp_path / 'pred.map.json', tmp_path / 'out'
    predicted = tuple(replace(e, score=0.9) for e in truth.elements[:1])
    write_map_file(path, [replace(truth, elements=predicted)])
    common = ['view', str(bag), '--out', str(out)]
    assert main([*common, '--ground-truth']) == 0
    text = capsys.readouterr().out
    assert f'{out / "tiny.html"}: 3 frames, 3 camera pictures' in text
    film = cv2.VideoCapture(str(out / 'tiny.mp4'))
    assert int(film.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert '"truth":[]' in (out / 'tiny.html').read_text()
    # Of a map file only the frames that it has, with the bag's whole map beneath.
    assert main([*common, '--predictions', str(path), '--no-video', '--json']) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['frames'] == 1 and list(summary['out']) == ['page']
    page = (out / 'tiny.html').read_text()
    assert '"s":0.9' in page and '"truth":[]' not in page and '<title>tiny · Prediction' in page
    # Nothing given: the shipped checkpoint maps the drive.
    assert main([*common, '--no-video', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['frames'] == 3
    assert 'gsmap_live_tiny' in (out / 'tiny.html').read_text()


def test_view_of_a_bag_names_what_is_wrong(tmp_path, capsys):
    bare = str(TinyDrive(num_frames=2, ground_truth=False).write(tmp_path / 'bare'))
    assert main(['view', bare, '--ground-truth', '--out', str(tmp_path)]) == 2
    assert 'has no ground truth' in capsys.readouterr().err
    assert main(['view', bare, '--ground-truth', '--weights', 'x', '--out', str(tmp_path)]) == 2
    assert 'give one of' in capsys.readouterr().err
    other = tmp_path / 'other.map.json'
    write_map_file(other, [VectorMap(stamp_ns=5, sample_id='x', map_from_base=np.eye(4))])
    assert main(['view', bare, '--predictions', str(other), '--out', str(tmp_path)]) == 2
    assert 'has no frame of' in capsys.readouterr().err
    assert main(['view', bare, '--frame', '0', '--no-video']) == 2
    assert '--no-video belongs to the page' in capsys.readouterr().err


@pytest.fixture
def gaussian_files(tmp_path):
    """Return predictions with covariances, 0.2 m beside the truth, and the truth."""
    line = np.stack([np.linspace(-20.0, 20.0, 20), np.zeros(20)], axis=-1)
    covariance = np.tile([1.0, 0.0, 0.01], (20, 1))
    predicted = MapElement(0, line + (0.0, 0.2), score=0.9, covariance=covariance)
    maps = [
        VectorMap((element,), 5, sample_id='f0') for element in (predicted, MapElement(0, line))
    ]
    paths = [tmp_path / 'gaussians.map.json', tmp_path / 'true.map.json']
    for path, vector_map in zip(paths, maps, strict=True):
        write_map_file(path, [vector_map])
    return [str(path) for path in paths]


def test_covariances_are_measured_where_there_are_any(gaussian_files, tmp_path, capsys):
    report = tmp_path / 'report'
    assert main(['evaluate', *gaussian_files, '--out', str(report)]) == 0
    text = capsys.readouterr().out
    assert 'calibrated sigma = 2.00 x predicted' in text
    values = json.loads((report / 'reliability.json').read_text())
    assert values['num_vertices'] == 20 and values['error_m'] == pytest.approx(0.2)
    assert cv2.imread(str(report / 'reliability.png')) is not None
    assert main(['evaluate', *gaussian_files, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['reliability']['sigma_factor'] == pytest.approx(2.0)


def test_view_of_gaussians(gaussian_files, files, tmp_path, capsys):
    out = tmp_path / 'gaussians.png'
    predictions, truth = gaussian_files
    beside = ['view', truth, '--predictions', predictions, '--gaussians', '--out', str(out)]
    assert main(beside) == 0
    four = cv2.imread(str(out))
    assert main(['view', predictions, '--gaussians', '--out', str(out)]) == 0
    assert 3 * four.shape[1] > 4 * cv2.imread(str(out)).shape[1] * 0.97
    capsys.readouterr()
    assert main(['view', files[0], '--gaussians', '--min-score', '0', '--out', str(out)]) == 2
    assert 'has no covariance' in capsys.readouterr().err
