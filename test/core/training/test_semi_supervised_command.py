"""`gsmap train` with unlabelled bags: from command line to checkpoint, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from helpers.fake_drives import micro_config
from helpers.posed_drives import PosedDrive, PosedRecording

from gsmap_core.cli import main
from gsmap_core.config import to_plain
from gsmap_core.data.bag import BagReader, BagRecorder, write_bag
from gsmap_core.data.pose_files import collect_pose_tables
from gsmap_core.data.traversal_file import TraversalPlan, write_traversal_file
from gsmap_core.data.traversal_splits import make_label_splits
from gsmap_core.data.traversals import analyse_traversals
from gsmap_core.models.checkpoint import load_checkpoint

QUICK = ['batch_size=2', 'log_interval_steps=1', 'workers=0', 'cache_gb=0.01', 'warmup_steps=1']
PAIRS = [
    'contrastive.pairs.per_batch=1', 'contrastive.pairs.cache_gb=0.01',
    'contrastive.num_anchors=16', 'contrastive.projection.dims=8',
]  # fmt: skip
DRIVES = {
    'labelled': PosedDrive('home', 4, start=(900.0, 0.0)),
    'far': PosedDrive('far', 4, start=(0.0, 700.0)),
    'there': PosedDrive('there', 4, seed=1),
    'back': PosedDrive('back', 4, seed=2, start=(25.0, 3.0), yaw_rad=3.0, offset=(50.0, 10.0)),
    'abroad': PosedDrive('abroad', 3, town='town-9'),
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """One bag per drive, and a model configuration."""
    folder = tmp_path_factory.mktemp('semi')
    for name, drive in DRIVES.items():
        write_bag(PosedRecording(drive), folder / 'bags' / name)
    without_poses(folder / 'bags' / 'there', folder / 'bags' / 'lost')
    (folder / 'micro.yaml').write_text(yaml.safe_dump(to_plain(micro_config())))
    return folder


def without_poses(source, target):
    """Copy a bag without what says where the vehicle was."""
    reader = BagReader(source)
    with BagRecorder(target) as recorder:
        for topic, info in reader.topics.items():
            if topic in ('/tf', '/odom'):
                continue
            recorder.add_topic(topic, info.type)
            for index, stamp in enumerate(reader.log_times_ns(topic)):
                recorder.write(topic, int(stamp), reader.message(topic, index))


def bags(data, *names):
    return [str(data / 'bags' / name) for name in names]


def arguments(data, out, *more, recipe='mapgclr_mini', sets=()):
    common = ['train', '--config', str(data / 'micro.yaml'), '--recipe', recipe, '--json']
    common += ['--out', str(out), '--device', 'cpu', '--no-progress', '--steps', '3', *more]
    return [*common, '--set', *QUICK, *sets]


def test_labelled_and_unlabelled_bags_give_a_checkpoint(data, tmp_path, capsys):
    options = ['--labelled', *bags(data, 'labelled'), '--unlabelled', *bags(data, 'there', 'back')]
    command = arguments(data, tmp_path, *options, '--max-minutes', '1e-6', sets=PAIRS)
    assert main.main(command) == 0
    output = capsys.readouterr()
    assert 'training micro on 4 frames of 1 drives' in output.err
    assert 'unlabelled: ' in output.err and '2 of 2 drives' in output.err
    report = json.loads(output.out)
    assert report['step'] == 1
    resume = ['train', '--resume', report['run'], '--device', 'cpu', '--no-progress', '--json']
    assert main.main(resume) == 0
    report = json.loads(capsys.readouterr().out)
    metadata = load_checkpoint(report['checkpoint']).metadata
    assert json.loads(metadata['train_drives']) == ['home']
    assert json.loads(metadata['unlabelled_drives']) == ['back', 'there']
    lines = (tmp_path / 'micro-000' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['loss']['pair_anchors'] for line in lines] == [16.0] * 3


def test_any_recipe_takes_unlabelled_bags(data, tmp_path, capsys):
    options = ['--labelled', *bags(data, 'labelled'), '--unlabelled', *bags(data, 'there', 'back')]
    assert main.main(arguments(data, tmp_path, *options, recipe='synthetic_mini')) == 0
    effective = yaml.safe_load((tmp_path / 'micro-000' / 'config.yaml').read_text())
    assert effective['recipe']['contrastive']['temperature'] == 0.1


REFUSED = {
    'alone': (['there'], "'there' is the only drive"),
    'far': (['there', 'far'], "'far' is 670 m from the area of the nearest, 'there'"),
    'abroad': (['there', 'back', 'abroad'], "'abroad' is alone in its city frame 'town-9'"),
    'lost': (['there', 'back', 'lost'], '1 of 3 unlabelled drives cannot be compared'),
}  # fmt: skip


@pytest.mark.parametrize('name', REFUSED)
def test_drives_that_cannot_be_paired_are_refused_before_training(data, tmp_path, capsys, name):
    names, message = REFUSED[name]
    options = ['--labelled', *bags(data, 'labelled'), '--unlabelled', *bags(data, *names)]
    assert main.main(arguments(data, tmp_path, *options)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_or_contradictory_options_are_named(data, tmp_path, capsys):
    options = ['--data', *bags(data, 'labelled')]
    assert main.main(arguments(data, tmp_path, *options)) == 2
    assert "recipe 'mapgclr_mini' learns from unlabelled drives" in capsys.readouterr().err
    assert main.main(arguments(data, tmp_path, *options, '--splits', 'x.json')) == 2
    assert 'go together' in capsys.readouterr().err


def test_label_splits_say_who_is_labelled(data, tmp_path, capsys):
    everyone = bags(data, 'labelled', 'far', 'there', 'back')
    tables, _ = collect_pose_tables(everyone)
    found = analyse_traversals(tables)
    plan = TraversalPlan(found.config, found.drives, found.pairs, make_label_splits(found.drives))
    write_traversal_file(tmp_path / 'plan.traversals.json', plan)
    splits = ['--splits', str(tmp_path / 'plan.traversals.json'), '--label-percent', '10']
    command = arguments(data, tmp_path, '--data', *everyone, *splits, sets=PAIRS)
    assert main.main(command) == 0
    report = json.loads(capsys.readouterr().out)
    metadata = load_checkpoint(report['checkpoint']).metadata
    assert json.loads(metadata['unlabelled_drives']) == ['back', 'there']
    single = [json.loads(metadata[key]) for key in ('train_drives', 'val_drives')]
    assert sorted(single) == [['far'], ['home']]
    # The supervised baseline: the same drives, unlabelled ones not looked at.
    command = arguments(data, tmp_path, '--data', *everyone, *splits, recipe='synthetic_mini')
    assert main.main(command) == 0
    metadata = load_checkpoint(json.loads(capsys.readouterr().out)['checkpoint']).metadata
    assert [json.loads(metadata[key]) for key in ('train_drives', 'val_drives')] == single
    assert 'unlabelled_drives' not in metadata
    few = arguments(data, tmp_path, '--data', *bags(data, 'there', 'back'), *splits)
    assert main.main(few) == 2
    assert 'drives that are not in --data' in capsys.readouterr().err


def test_two_gloo_processes_share_negatives_and_gradients(data, tmp_path):
    """Both ranks end with the same model and the same projection head."""
    script = tmp_path / 'ranks.py'
    script.write_text(
        'import os, sys, torch\n'
        'from gsmap_core.cli import main\n'
        'from gsmap_core.training.trainer import Trainer\n'
        'finish = Trainer._save\n'
        'def save(self):\n'
        '    finish(self)\n'
        f'    torch.save(self.semi.model.state_dict(), r"{tmp_path}/rank" + os.environ["RANK"])\n'
        'Trainer._save = save\n'
        'sys.exit(main.main(sys.argv[1:]))\n'
    )
    options = ['--labelled', *bags(data, 'labelled'), '--unlabelled', *bags(data, 'there', 'back')]
    sets = [*PAIRS, 'contrastive.gather_negatives=true', 'batch_size=1', 'accumulate_steps=2']
    command = [sys.executable, str(script), *arguments(data, tmp_path, *options, sets=sets)]
    # What torchrun would say, without its launcher.
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'WORLD_SIZE': '2'}
    environment |= {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(20000 + os.getpid() % 10000)}
    processes = [
        subprocess.Popen(
            command, env={**environment, 'RANK': rank, 'LOCAL_RANK': rank}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in '01'
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-3000:]
    assert json.loads(outputs[0][0].strip().splitlines()[-1])['finished']
    ranks = [torch.load(tmp_path / f'rank{r}', weights_only=True) for r in (0, 1)]
    for name, value in ranks[0].items():
        if 'running' not in name:
            torch.testing.assert_close(ranks[1][name], value, rtol=0, atol=0)
    head = [key for key in ranks[0] if key.startswith('head.')]
    assert len(head) == 4
