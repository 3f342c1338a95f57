"""`gsmap train` on a bag: from the command line to a checkpoint, alone and with two processes."""

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from helpers.fake_drives import FakeDrive, micro_config
from helpers.painted_drive import PosedRecording

from gsmap_core.cli import main
from gsmap_core.cli.train import _recipe_path
from gsmap_core.config import load_model_config, to_plain
from gsmap_core.data.bag import write_bag
from gsmap_core.data.sequences import SequenceBatches
from gsmap_core.models.checkpoint import load_checkpoint, save_checkpoint
from gsmap_core.models.mapper import OnlineMapper

STREAMING = ['model.fusion.kind=keyframe_streaming']
QUICK = ['batch_size=2', 'log_interval_steps=1', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1']


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A folder with two bags and a model configuration."""
    folder = tmp_path_factory.mktemp('train')
    for seed in range(2):
        drive = FakeDrive(4, seed, speed_m=2.0)
        write_bag(PosedRecording(drive), folder / 'bags' / f'drive{seed}')
    values = to_plain(micro_config())
    (folder / 'micro.yaml').write_text(yaml.safe_dump(values))
    return folder


def arguments(data, out, *more):
    common = ['train', '--config', str(data / 'micro.yaml'), '--recipe', 'synthetic_mini']
    common += ['--data', str(data / 'bags'), '--out', str(out), '--device', 'cpu', '--no-progress']
    return [*common, '--json', *more, '--set', *QUICK]


def test_training_stops_resumes_and_finishes(data, tmp_path, capsys):
    val = ['--val', str(data / 'bags' / 'drive1')]
    assert main.main(arguments(data, tmp_path, '--steps', '4', '--max-minutes', '1e-6', *val)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['step'] == 1 and not report['finished'] and report['checkpoint'] is None
    assert report['resume'] == f'gsmap train --resume {report["run"]}'
    resume = ['train', '--resume', report['run'], '--device', 'cpu', '--no-progress', '--json']
    assert main.main(resume) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['finished'] and report['step'] == 4
    metadata = load_checkpoint(report['checkpoint']).metadata
    assert json.loads(metadata['train_drives']) == ['fake-0', 'fake-1']
    assert json.loads(metadata['val_drives']) == ['fake-1']
    assert 0.0 <= report['chamfer_map'] <= 1.0
    # The recipe asks for no other metric.
    lines = (tmp_path / 'micro-000' / 'metrics.jsonl').read_text().splitlines()
    assert 'chamfer_map' in lines[-1] and 'raster_map' not in lines[-1]
    effective = yaml.safe_load((tmp_path / 'micro-000' / 'config.yaml').read_text())
    assert effective['recipe']['steps'] == 4 and effective['recipe']['epochs'] is None


def test_training_starts_from_a_checkpoint(data, tmp_path, capsys):
    """With a learning rate of nothing the result is the checkpoint itself."""
    torch.manual_seed(5)
    given = tmp_path / 'given.safetensors'
    save_checkpoint(given, OnlineMapper(micro_config()), {})
    options = ['--steps', '1', '--init', str(given)]
    assert main.main([*arguments(data, tmp_path, *options), 'lr=1e-12', 'weight_decay=0']) == 0
    report = json.loads(capsys.readouterr().out)
    result = load_checkpoint(report['checkpoint'])
    assert result.metadata['initial_weights'] == 'given.safetensors'
    expected = dict(load_checkpoint(given).model.named_parameters())
    for name, tensor in result.model.named_parameters():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert main.main(arguments(data, tmp_path, '--init', str(tmp_path / 'none'))) == 2
    assert "'none' not found" in capsys.readouterr().err.replace(str(tmp_path) + '/', '')


def test_training_starts_from_what_another_model_shares(data, tmp_path, capsys):
    """A memory is added to a single-frame model: everything else begins as it was."""
    torch.manual_seed(5)
    given = tmp_path / 'given.safetensors'
    save_checkpoint(given, OnlineMapper(micro_config()), {})
    partly = ['--steps', '1', '--init', str(given), '--init-partly']
    still = ['lr=1e-12', 'weight_decay=0', 'model.fusion.kind=keyframe_streaming']
    assert main.main([*arguments(data, tmp_path, *partly), *still]) == 0
    output = capsys.readouterr()
    begun = output.err.split('begins anew: ')[1].split('\n')[0]
    assert begun.startswith('fusion.') and 'decoder' not in begun and 'backbone' not in begun
    result = load_checkpoint(json.loads(output.out)['checkpoint'])
    expected = dict(load_checkpoint(given).model.named_parameters())
    shared = [(k, v) for k, v in result.model.named_parameters() if not k.startswith('fusion.')]
    assert {name for name, _ in shared} == set(expected)
    for name, tensor in shared:
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    other = [*arguments(data, tmp_path, *partly), 'model.range.x_max=40']
    assert main.main(other) == 2
    assert 'means something else' in capsys.readouterr().err
    assert main.main(['train', '--data', str(data / 'bags'), '--init-partly']) == 2


def test_a_recipe_of_a_paper_runs_on_one_process_with_its_batch(data, tmp_path, capsys, caplog):
    command = ['train', '--config', str(data / 'micro.yaml'), '--recipe', 'maptrv2_av2']
    command += ['--data', str(data / 'bags'), '--out', str(tmp_path), '--device', 'cpu']
    small = ['total_batch_size=4', 'batch_size=2', 'workers=0', 'precision=fp32']
    with caplog.at_level(logging.WARNING):
        assert main.main([*command, '--json', '--no-progress', '--set', *small]) == 0
    output = capsys.readouterr()
    assert '12 steps of 2 x 1 x 2 samples' in output.err  # 6 epochs of 8 frames
    assert json.loads(output.out)['step'] == 12
    assert 'backbone_lr_factor is 0.1' in caplog.text
    assert main.main([*command, '--set', 'total_batch_size=5', 'batch_size=2']) == 2
    assert 'does not divide it' in ' '.join(capsys.readouterr().err.split())
    assert not (tmp_path / 'micro-001').exists()


def test_the_recipe_follows_from_the_model():
    names = ('interactionmap_r_mini', 'gsmap_live_tiny', 'gsmap_live_r50', 'maptrv2_mini')
    found = [_recipe_path(None, load_model_config(name)).stem for name in names]
    assert found == [
        'synthetic_mini_sequences',
        'synthetic_tiny_sequences',
        'synthetic_r50_sequences',
        'synthetic_mini',
    ]


def losses_of(run):
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def test_killed_training_loses_nothing_that_was_saved(data, tmp_path):
    """Killed in the middle of sequences; what it had done beyond the last state comes again."""
    command = [sys.executable, '-m', 'gsmap_core.cli.main']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    quick = arguments(data, tmp_path, '--steps', '200') + ['checkpoint_interval_min=0']
    quick += [*STREAMING, 'sequences.single_frame_share=0']
    process = subprocess.Popen([*command, *quick], env=environment, stderr=subprocess.DEVNULL)
    run = tmp_path / 'micro-000'
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            if (run / 'metrics.jsonl').is_file() and len(losses_of(run)) >= 4:
                break
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    state = torch.load(run / 'last.pt', weights_only=True)
    assert 1 <= state['step'] < 200
    logged = losses_of(run)
    before = {step: loss for step, loss in logged.items() if step <= state['step']}
    resume = ['train', '--resume', str(run), '--device', 'cpu', '--no-progress']
    again = [*command, *resume, '--max-minutes', '1e-6']
    done = subprocess.run(again, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f'stopped after step {state["step"] + 1} of 200' in done.stdout
    after = losses_of(run)
    assert list(after) == list(range(1, state['step'] + 2))
    assert {step: after[step] for step in before} == before
    last = state['step'] + 1
    assert after[last] == logged.get(last, after[last])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_group_that_is_told_to_end_saves_first(data, tmp_path, number):
    """Job managers tell the loader's workers too; the step still ends and the state is saved."""
    command = [*arguments(data, tmp_path, '--steps', '100000'), 'workers=2']
    process = subprocess.Popen(
        [sys.executable, '-m', 'gsmap_core.cli.main', *command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = tmp_path / 'micro-000' / 'metrics.jsonl'
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count('\n') > 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=120)
    report = json.loads(output)
    assert process.returncode == 0 and not report['finished'] and report['step'] > 2
    assert (tmp_path / 'micro-000' / 'last.pt').exists()


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--set', 'lr=fast'], "'fast' is a str"),
        (['--set', 'learning=1'], "unknown key 'learning'"),
        (['--set', 'model.decoder.num_layer=1'], "did you mean 'num_layers'"),
        (['--set', 'lr'], 'expected KEY=VALUE'),
        (['--backbone', '/nowhere.pth'], "'/nowhere.pth' do not exist"),
    ],
)
def test_wrong_input_is_refused_with_a_message(data, tmp_path, capsys, more, message):
    assert main.main([*arguments(data, tmp_path, '--steps', '1'), *more]) == 2
    assert message in capsys.readouterr().err


def test_missing_options_are_named(tmp_path, capsys):
    assert main.main(['train']) == 2
    assert '--config and --data are missing' in capsys.readouterr().err
    assert main.main(['train', '--resume', str(tmp_path), '--steps', '3']) == 2
    assert '--steps cannot be changed' in capsys.readouterr().err


RANKS = """
import json, os, sys, torch
from contextlib import nullcontext
from gsmap_core.cli import main
from gsmap_core.training import distributed
from gsmap_core.training.trainer import Trainer

rank, seen = os.environ['RANK'], []
save, frames, run = Trainer._save, Trainer._frames, Trainer.run

def saved(self):
    save(self)
    torch.save(self.model.state_dict(), self.run_directory.path / f'rank{rank}')

def watched(self, batch, part):
    starts = None if batch.starts is None else batch.starts.tolist()
    seen.append([self.step, part, list(batch.indices), starts])
    return frames(self, batch, part)

Trainer._save, Trainer._frames = saved, watched
folder, arguments = sys.argv[1], sys.argv[2:]
resume = ['train', '--resume', f'{folder}/again-000', '--device', 'cpu', '--no-progress', '--json']
with distributed.joined_processes('cpu') as processes:
    # One group of processes for all three commands.
    distributed.joined_processes = lambda _: nullcontext(processes)
    code = main.main(arguments)
    with open(f'{folder}/seen{rank}.json', 'w') as file:
        json.dump(seen, file)
    Trainer.run = lambda self, **_: run(self, stop_requested=lambda: self.step == 15)
    code += main.main([*arguments, '--name', 'again'])
    Trainer.run = run
    code += main.main(resume)
sys.exit(code)
"""


def test_two_gloo_processes_train_the_same_model(data, tmp_path):
    """Launched by torchrun: both ranks end with the same weights, and the loss falls.

    Two forward passes per step, so that gradients are averaged after the second one only; each of
    them draws which parts of the relations it uses. Single frames, then sequences. The first rank
    validates while the other one waits. Stopped among the sequences and resumed, all comes out
    the same.
    """
    script = tmp_path / 'ranks.py'
    script.write_text(RANKS)
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2']
    command += ['--master-port', str(20000 + os.getpid() % 10000), str(script), str(tmp_path)]
    command += arguments(data, tmp_path, '--steps', '20', '--val', str(data / 'bags'))
    command += ['augmentation.photometric=0', 'augmentation.mirror=0', 'total_batch_size=8']
    command += ['eval_interval_steps=12']
    switches = ('coordinates', 'score_rank_chamfer', 'ping_pong')
    command += [f'model.decoder.relation.{name}=true' for name in switches]
    command += STREAMING
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads(line) for line in done.stdout.strip().splitlines()]
    assert [(report['finished'], report['step']) for report in reports] == [
        (True, 20), (False, 15), (True, 20),
    ]  # fmt: skip
    runs = [tmp_path / 'micro-000', tmp_path / 'again-000']
    ranks = [torch.load(run / f'rank{r}', weights_only=True) for run in runs for r in (0, 1)]
    assert 'decoder.relation.instances.0.linear.weight' in ranks[0]
    for name, value in ranks[0].items():
        if 'running' not in name:  # statistics are those of each process until the next step
            for other in ranks[1:]:
                torch.testing.assert_close(other[name], value, rtol=0, atol=0)
    assert losses_of(runs[0]) == losses_of(runs[1])
    assert not (tmp_path / 'micro-001').exists()
    lines = [json.loads(line) for line in (runs[0] / 'metrics.jsonl').read_text().splitlines()]
    validated = [line for line in lines if 'val_loss' in line]
    assert [line['step'] for line in validated] == [12, 20]
    assert all(line['val_loss']['total'] > 0 for line in validated)
    trained = [line for line in lines if 'loss' in line]
    losses = [line['loss']['total'] for line in trained]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert trained[-1]['epoch'] == pytest.approx(20 * 8 / 8)
    # The eight slots of both processes are those of one process with a batch of eight.
    expected = itertools.islice(SequenceBatches([range(4), range(4, 8)], 8, first_epoch=10), 10)
    found = {(rank, step, part): [*map(tuple, zip(indices, starts, strict=True))]
             for rank in (0, 1)
             for step, part, indices, starts in json.loads(
                 (tmp_path / f'seen{rank}.json').read_text())
             if starts is not None}  # fmt: skip
    assert len(found) == 2 * 10 * 2
    for step, keys in enumerate(expected, start=10):
        together = sum((found[rank, step, part] for rank in (0, 1) for part in (0, 1)), [])
        assert sorted(together) == sorted((index, index == first) for _, index, first in keys)
