"""`gsmap bench`: what it measures, with numbers that are known beforehand."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import yaml
from helpers.fake_drives import micro_config

from gsmap_core.cli import (
    bench,
    bench_evaluate,
    bench_measure,
    bench_raster,
    bench_stream,
    bench_throughput,
)
from gsmap_core.cli.main import main
from gsmap_core.config import RasterLossConfig, to_plain
from gsmap_core.errors import ConfigError
from gsmap_core.gaussians.unions import UNIONS
from gsmap_core.mapfile import write_map_file
from gsmap_core.structures import MapElement, VectorMap

CPU = torch.device('cpu')


def _case(**changes: object) -> bench_raster.RasterCase:
    values = {
        'num_elements': 3, 'num_places': 4, 'num_rows': 20, 'num_columns': 10, 'scales': 'init',
        'union': 'probabilistic', 'device': 'cpu',
    }  # fmt: skip
    return bench_raster.RasterCase(**{**values, **changes})  # type: ignore[arg-type]


def test_every_benchmark_has_a_module() -> None:
    parser_names = [bench.module_name(name) for name in bench.BENCHMARKS]
    assert 'gsmap_core.cli.bench_raster' in parser_names
    assert get_args(get_type_hints(RasterLossConfig)['union']) == UNIONS


def test_raster_reports_time_and_memory(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['bench', 'raster', '--sizes', '20x20x100x50', '--scales', 'trained']
    assert main([*arguments, '--repeats', '2', '--device', 'cpu', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert 'no checkpoint was used' in report['scales']['trained']
    (result,) = report['results']
    assert [result[key] for key in ('num_elements', 'num_rows', 'scales')] == [20, 100, 'trained']
    ways = result['ways']
    assert ways['reference']['seconds'] > 0
    assert ways['fast']['times_faster'] > 0
    if ways['reference']['peak_bytes'] is None:
        pytest.skip('this system does not tell the peak of a process')
    # At least one density per element, Gaussian and cell.
    assert ways['reference']['peak_bytes'] > 20 * 20 * 100 * 50 * 4
    assert ways['fast']['times_less_memory'] > 1
    assert '| fast |' in bench_raster._as_text(report)


def test_peak_memory_is_that_of_the_call_alone() -> None:
    """400 MB, allocated in the call and freed before its end is looked at.

    Large beside what a first call takes for itself, which is up to some ten megabytes.
    """
    peak = bench_measure.peak_memory_bytes(partial(partial, torch.ones, 100_000_000), CPU)
    if peak is None:
        pytest.skip('this system does not tell the peak of a process')
    assert peak == pytest.approx(400e6, rel=0.1)


def test_rounds_are_interleaved_and_every_way_is_warmed_up() -> None:
    calls: list[str] = []
    ways = {name: partial(calls.append, name) for name in 'ab'}
    times = bench_measure.interleaved_seconds(ways, 2, CPU)
    assert ''.join(calls) == 'ababba'
    assert [len(times[name]) for name in 'ab'] == [2, 2]
    slow = bench_measure.interleaved_seconds({'sleep': partial(time.sleep, 0.02)}, 1, CPU)
    assert slow['sleep'][0] >= 0.02
    assert bench_measure.median_ratio([2, 8, 9], [1, 2, 9]) == 2


def test_stream_reports_segments_of_a_long_drive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_stream, '_NUM_WARM_FRAMES', 1)
    arguments = ['bench', 'stream', '--config', 'interactionmap_r_mini', '--pictures', '0']
    arguments += ['--rate-hz', '2', '--device', 'cpu']
    assert main([*arguments, '--frames', '6', '--segments', '2', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['stream']['num_frames'] == 7 and report['stream']['num_resets'] == 0
    first, last = report['segments']
    # Two maps of 48 x 60 x 30 numbers, a few poses and counters.
    assert 2 * 48 * 60 * 30 * 4 < first['state_bytes'] < 2 * 48 * 60 * 30 * 4 + 1000
    assert report['last_to_first']['state_bytes'] == 1.0
    assert report['last_to_first']['median_ms'] == last['median_ms'] / first['median_ms']
    assert '| last : first |' in bench_stream._as_text(report)
    with pytest.raises(ConfigError, match='expected a multiple'):
        bench_stream.run(bench_parser([*arguments, '--frames', '5', '--segments', '2']))


def bench_parser(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(arguments[1:])


def test_gaussians_as_initialised_and_as_trained() -> None:
    centers, scales, thetas = bench_raster.make_gaussians(_case())
    assert centers.shape == (3, 4, 2) and not thetas.any()
    assert torch.all(scales == torch.tensor(0.6))
    _, scales, thetas = bench_raster.make_gaussians(_case(scales='trained'))
    assert (scales[..., 0] >= 0.6).all() and (scales[..., 1] <= 0.6).all()
    # The long axis lies along the line.
    steps = centers.diff(dim=1)
    along = torch.stack([thetas.cos(), thetas.sin()], dim=-1)[:, 1:]
    assert (torch.linalg.vecdot(steps, along) > 0.99 * steps.norm(dim=-1)).all()


def test_gaussians_of_predictions(tmp_path: Path) -> None:
    element = MapElement(
        0, np.array([[1.0, 2], [3, 4]]), score=0.5, covariance=np.array([[4.0, 0, 1], [1, 0, 9]])
    )
    plain = MapElement(0, np.array([[1.0, 2], [3, 4]]), score=0.5)
    with_covariance, without = tmp_path / 'a.map.json', tmp_path / 'b.map.json'
    write_map_file(with_covariance, [VectorMap((plain, element), sample_id='a')])
    write_map_file(without, [VectorMap((plain,), sample_id='a')])
    centers, scales, thetas = bench_raster.make_gaussians(_case(scales=str(with_covariance)))
    assert centers[2].tolist() == [[1, 2], [3, 4], [1, 2], [3, 4]]
    torch.testing.assert_close(scales[0, :2], torch.tensor([[2.0, 1], [3, 1]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(thetas[0, :2], torch.tensor([0, np.pi / 2]).float())
    with pytest.raises(ConfigError, match='no element with a covariance'):
        bench_raster.make_gaussians(_case(scales=str(without)))


@pytest.mark.parametrize('size', ['50x20x200', '0x20x200x100', 'axbxcxd'])
def test_wrong_sizes_are_named(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', 'raster', '--sizes', size]) == 2
    assert f"'{size}'" in capsys.readouterr().err


def test_wrong_counts_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', 'raster', '--repeats', '0']) == 2
    assert '--repeats 0' in capsys.readouterr().err


def test_overhead_reports_both_models_and_their_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = 'image: {width_px: 64, height_px: 32}\nbev: {num_rows: 20, num_columns: 10}\n'
    for name in ('maptr', 'gsmap'):
        (tmp_path / f'{name}.yaml').write_text(f'extends: {name}_mini\n{small}')
    host, config = str(tmp_path / 'maptr.yaml'), str(tmp_path / 'gsmap.yaml')
    arguments = ['bench', 'overhead', '--host', host, '--config', config, '--device', 'cpu']
    assert main([*arguments, '--repeats', '3', '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    # 48 channels: two layers of 48 x 128 and 128 x 3 weights and their biases.
    assert report['parameters'][config] - report['parameters'][host] == 49 * 128 + 129 * 3
    assert set(report['median_ms']) == {host, config} and report['ratio'] > 0
    assert main([*arguments[:-4], '--config', host, '--repeats', '1']) == 2
    assert 'give two models' in capsys.readouterr().err


def test_evaluate_makes_the_same_set_again_and_scores_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['bench', 'evaluate', '--frames', '3', '--predictions', '6', '--seed', '5']
    assert main([*arguments, '--write', str(tmp_path), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert result['frames'] == 3 and set(result['metrics']) == {'chamfer', 'raster'}
    assert result['metrics']['chamfer']['cpu_s'] > 0 and result['peak_mib'] > 0
    pairs = list(bench_evaluate.make_set(3, 6, seed=5))
    assert [len(prediction) for prediction, _ in pairs] == [6, 6, 6]
    assert result['true_elements'] == sum(len(truth) for _, truth in pairs)
    files = [str(tmp_path / f'{n}.map.json') for n in ('predictions', 'ground_truth')]
    assert main(['evaluate', *files, '--json']) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['mean_ap'] == pytest.approx(result['metrics']['chamfer']['value'])
    assert main([*arguments, '--metric', 'bev_iou']) == 0
    assert 'CPU-seconds' in capsys.readouterr().out
    assert main(['bench', 'evaluate', '--frames', '0']) == 2
    assert '--frames 0, --predictions 50; expected at least 1' in capsys.readouterr().err


def test_throughput_of_training_and_inference(tmp_path: Path, capsys) -> None:
    path = tmp_path / 'micro.yaml'
    path.write_text(yaml.safe_dump(to_plain(micro_config())))
    arguments = ['bench', 'throughput', '--models', str(path), '--formats', 'fp32', 'bf16']
    arguments += ['--batch', '3', '--repeats', '2', '--device', 'cpu', '--json']
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row['format'] for row in report['results']] == ['fp32', 'bf16']
    for row in report['results']:
        assert row['training']['samples_per_second'] > 0 and row['batch_size'] == 3
        assert row['inference']['frames_per_second'] > 0
    table = bench_throughput.as_text(report).splitlines()
    assert len(table) == 6 and table[-1].startswith(f'| `{path}` | bf16 | 3 |')


def test_a_training_step_of_the_throughput_learns(tmp_path: Path) -> None:
    path = tmp_path / 'micro.yaml'
    path.write_text(yaml.safe_dump(to_plain(micro_config())))
    step = bench_throughput.training_step(
        bench_throughput.ThroughputCase(str(path), 'fp32', 2, 'cpu')
    )
    losses = [float(step()) for _ in range(12)]
    assert losses[-1] < losses[0]
