"""Installs `gsmap_core`, `gsmap_ros` and the command `gsmap`; colcon builds the same tree."""

from __future__ import annotations

import re
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """Return the version that `gsmap_core` states."""
    text = (ROOT / 'gsmap_core' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    if match is None:
        raise RuntimeError('gsmap_core/__init__.py states no __version__')
    return match.group(1)


def share_files() -> list[tuple[str, list[str]]]:
    """Return what `gsmap_core.resources` looks for under `share/gsmap_ros`."""
    files = [('share/gsmap_ros', ['package.xml'])]
    for folder in ('msg', 'launch', 'config', 'config/*'):
        for path in sorted(glob(folder, root_dir=ROOT)):
            names = [str(item) for item in sorted(Path(path).glob('*')) if item.is_file()]
            if names:
                files.append((f'share/gsmap_ros/{path}', names))
    return files


setup(
    name='gsmap_ros',
    version=version(),
    description='Online vectorised HD mapping from surround cameras, live over ROS 2',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # `include`: build/ and install/ of colcon lie beside the packages and must not be picked up.
    packages=find_packages(include=['gsmap_core', 'gsmap_core.*', 'gsmap_ros', 'gsmap_ros.*']),
    package_data={'gsmap_core': ['py.typed', 'viz/page/*', 'weights/*']},
    data_files=share_files(),
    install_requires=[
        'matplotlib',
        'numpy>=1.26',
        'opencv-python-headless',
        'pillow',
        'pyyaml',
        'rosbags>=0.10',
        'safetensors',
        'scipy',
        'shapely>=2.0',
        'torch>=2.3',
        'tqdm',
    ],
    extras_require={
        'train': ['tensorboard'],
        # pyarrow 26 needs numpy 2 and does not say so.
        'argoverse2': ['av2>=0.3.6', 'pyarrow<26'],
        'nuscenes': ['nuscenes-devkit==1.2.0'],
        'test': ['mcap', 'mcap-ros2-support', 'mypy', 'pytest', 'ruff', 'types-PyYAML'],
    },
    entry_points={'console_scripts': ['gsmap = gsmap_core.cli.main:main']},
)
