"""The arrows of docs/architecture.md: who may import whom, read from the source, never run.

A room is a folder of `gsmap_core` or one of its single files at the top.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# What every room may know: the single files at the top, and geometry.
BASE = {
    'structures', 'categories', 'config', 'part_configs', 'relation_config', 'loss_configs',
    'plain_config', 'errors', 'contrastive_config', 'resources', 'images', 'frame_inputs',
    'mapfile', 'rig', 'targets', 'image_targets', 'geometry',
    'calibration', 'checkpoint_header', 'atomic_files',
}  # fmt: skip
#: Room -> the rooms it may import, besides itself and BASE.
ALLOWED: dict[str, set[str]] = {
    'gaussians': set(),
    'ops': {'gaussians'},
    'models': {'gaussians', 'ops'},
    'runtime': {'models', 'gaussians', 'ops'},
    'data': set(),
    'viz': {'gaussians'},
    'evaluation': {'viz', 'gaussians'},
    'mapping': set(),
    'losses': {'models', 'gaussians'},
    'training': {'losses', 'models', 'gaussians', 'ops', 'data', 'evaluation', 'runtime'},
}
# `cli` is the door: it may know everything, and nothing may know it.
ALLOWED['cli'] = set(ALLOWED)
#: gsmap_ros module -> rooms it may import besides BASE, runtime, mapping and viz.
ROS_EXTRA = {'replay_node': {'data'}, 'record_node': {'data'}}
ROS_ROOMS = {'runtime', 'mapping', 'viz'}
ROS_PACKAGES = {
    'rclpy', 'tf2_ros', 'tf2_msgs', 'cv_bridge', 'launch', 'launch_ros', 'sensor_msgs', 'std_msgs',
    'geometry_msgs', 'nav_msgs', 'std_srvs', 'visualization_msgs', 'diagnostic_msgs',
    'lifecycle_msgs', 'rosgraph_msgs', 'rcl_interfaces', 'builtin_interfaces', 'gsmap_ros',
    'ament_index_python', 'message_filters',
}  # fmt: skip
#: Dataset devkit -> the only module that may import it.
DEVKITS = {'nuscenes': 'data/nuscenes.py', 'av2': 'data/argoverse2_devkit.py'}


def imports_of(path: Path) -> list[tuple[str, bool]]:
    """Return the imported modules in full, and whether the import stands inside a function."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    package = list(path.relative_to(ROOT).with_suffix('').parts)
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = '.'.join(package[: len(package) - child.level]) if child.level else ''
                module = '.'.join(part for part in (base, child.module) if part)
                found.append((module, inside))
                # `from gsmap_core import viz` names a room in the second half.
                found.extend((f'{module}.{alias.name}', inside) for alias in child.names)
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            visit(child, inside or function)

    visit(tree, False)
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob('*.py'))


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT / 'gsmap_core').with_suffix('').parts
    return parts[0]


def core_rooms(path: Path) -> set[str]:
    """Return the rooms of gsmap_core that a file imports."""
    names = {
        module.split('.')[1] for module, _ in imports_of(path) if module.startswith('gsmap_core.')
    }
    return {name for name in names if name in ALLOWED or name in BASE or room_exists(name)}


def room_exists(name: str) -> bool:
    folder = ROOT / 'gsmap_core' / name
    return folder.is_dir() or folder.with_suffix('.py').is_file()


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in sources('gsmap_core')} - {'__init__'}
    assert rooms <= BASE | set(ALLOWED), 'a new room needs its arrows in ALLOWED'


@pytest.mark.parametrize('room', sorted(ALLOWED))
def test_room_imports_only_what_it_may_know(room: str) -> None:
    allowed = ALLOWED[room] | BASE | {room}
    for path in sources(f'gsmap_core/{room}'):
        assert core_rooms(path) <= allowed, path


def test_base_knows_only_base() -> None:
    for path in sources('gsmap_core'):
        if room_of(path) in BASE:
            assert core_rooms(path) <= BASE, path


def test_nothing_but_tests_and_nodes_knows_ros() -> None:
    for path in sources('gsmap_core'):
        for module, _ in imports_of(path):
            assert module.split('.')[0] not in ROS_PACKAGES, f'{path} imports {module}'


def test_nodes_know_only_their_rooms() -> None:
    for path in sources('gsmap_ros'):
        allowed = BASE | ROS_ROOMS | ROS_EXTRA.get(path.stem, set())
        assert core_rooms(path) <= allowed, path


@pytest.mark.parametrize('devkit', sorted(DEVKITS))
def test_devkits_stay_in_their_reader(devkit: str) -> None:
    for package in ('gsmap_core', 'gsmap_ros'):
        for path in sources(package):
            for module, inside in imports_of(path):
                if module.split('.')[0] == devkit:
                    assert str(path.relative_to(ROOT / 'gsmap_core')) == DEVKITS[devkit]
                    assert inside, f'{path} imports {devkit} at module level'


def test_optional_packages_are_asked_for_inside_functions() -> None:
    """No import of a module may fail because ROS's optional packages are missing or broken."""
    for package in ('gsmap_core', 'gsmap_ros'):
        for path in sources(package):
            for module, inside in imports_of(path):
                if module.split('.')[0] in {'cv_bridge', 'tf2_ros', 'tensorboard'}:
                    assert inside, f'{path} imports {module} at module level'


def test_core_imports_without_ros_and_display() -> None:
    """Import every module of gsmap_core in a process where ROS cannot be imported."""
    names = [
        '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        for path in sources('gsmap_core')
    ]
    blocked = sorted(ROS_PACKAGES | set(DEVKITS))
    code = f"""
import importlib, sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it raises ImportError
for name in {names!r}:
    importlib.import_module(name)
if 'matplotlib.pyplot' in sys.modules:
    raise SystemExit('pyplot was imported at module level; it looks for a display')
"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_the_checker_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of imports finds every form of import, relative ones and late ones included."""
    package = tmp_path / 'gsmap_core' / 'models'
    package.mkdir(parents=True)
    file = package / 'x.py'
    file.write_text(
        'from gsmap_core import losses\n'
        'import gsmap_core.data.bag\n'
        'from ..viz import bev\n'
        'def f():\n    from gsmap_core.training.trainer import Trainer\n'
    )
    (tmp_path / 'gsmap_core' / 'losses').mkdir()
    monkeypatch.setattr(sys.modules[__name__], 'ROOT', tmp_path)
    assert core_rooms(file) == {'losses', 'data', 'viz', 'training'}
    assert ('gsmap_core.training.trainer', True) in imports_of(file)
