"""One version, one licence, one list of files: what the installers must agree on."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import yaml

import gsmap_core
from gsmap_core.resources import resource_dir


def _setup_call(root: Path) -> dict[str, ast.expr]:
    tree = ast.parse((root / 'setup.py').read_text(encoding='utf-8'))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup':
            return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    raise AssertionError('setup.py calls no setup()')


def test_versions_agree(repo_root: Path) -> None:
    package = ElementTree.parse(repo_root / 'package.xml').getroot()
    assert package.findtext('version') == gsmap_core.__version__
    changelog = (repo_root / 'CHANGELOG.rst').read_text(encoding='utf-8')
    newest = re.search(r'^(\d+\.\d+\.\d+) \(', changelog, re.MULTILINE)
    assert newest is not None and newest.group(1) == gsmap_core.__version__
    # setup.py reads it from gsmap_core; a number written there would be a second one.
    assert isinstance(_setup_call(repo_root)['version'], ast.Call)


def test_licence_and_name_agree(repo_root: Path) -> None:
    package = ElementTree.parse(repo_root / 'package.xml').getroot()
    call = _setup_call(repo_root)
    assert package.findtext('license') == ast.literal_eval(call['license']) == 'Apache-2.0'
    assert package.findtext('name') == ast.literal_eval(call['name']) == 'gsmap_ros'
    assert 'Apache License' in (repo_root / 'LICENSE').read_text(encoding='utf-8')


def test_messages_are_listed_for_the_generator(repo_root: Path) -> None:
    cmake = (repo_root / 'CMakeLists.txt').read_text(encoding='utf-8')
    listed = set(re.findall(r'msg/(\w+)\.msg', cmake))
    assert listed == {path.stem for path in (repo_root / 'msg').glob('*.msg')}


def test_direct_requirements_are_pinned(repo_root: Path) -> None:
    """Everything the bootstrap asks for has exactly one version in constraints.txt."""
    pins = re.findall(
        r'^([A-Za-z0-9_.-]+)==', (repo_root / 'constraints.txt').read_text('utf-8'), re.MULTILINE
    )
    pinned = [re.sub(r'[-_.]+', '-', name).lower() for name in pins]
    assert len(pinned) == len(set(pinned))
    for file in (repo_root / 'requirements').glob('*.txt'):
        for line in file.read_text(encoding='utf-8').splitlines():
            name = re.split(r'[#\[<>=!~ ]', line, maxsplit=1)[0]
            if name:
                assert re.sub(r'[-_.]+', '-', name).lower() in pinned, f'{file.name}: {name}'


def test_resources_of_the_checkout_are_found(repo_root: Path) -> None:
    for name in ('msg', 'config', 'launch'):
        assert resource_dir(name) == repo_root / name


def test_continuous_integration_calls_make_test(repo_root: Path) -> None:
    script = repo_root / '.ci' / 'run'
    assert script.stat().st_mode & 0o111
    lines = script.read_text(encoding='utf-8').splitlines()
    assert lines[0] == '#!/usr/bin/env bash'
    assert lines[-1] == 'exec make test'


def test_shell_scripts_parse(repo_root: Path) -> None:
    for script in (repo_root / 'tools' / 'bootstrap.sh', repo_root / '.ci' / 'run'):
        done = subprocess.run(['bash', '-n', str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_container_files_name_what_exists(repo_root: Path) -> None:
    """What the Dockerfile copies, and the stage and releases that the workflow builds."""
    text = (repo_root / 'docker' / 'Dockerfile').read_text(encoding='utf-8')
    copied = re.findall(r'^COPY (\S+) ', text, re.MULTILINE)
    assert copied and all((repo_root / source).exists() for source in copied)
    for inside in re.findall(r'src/gsmap_ros/(\S+\.(?:sh|txt))', text):
        assert (repo_root / inside).is_file(), inside
    entry = repo_root / 'docker' / 'entrypoint.sh'
    assert entry.stat().st_mode & 0o111
    subprocess.run(['bash', '-n', str(entry)], check=True)
    ignored = (repo_root / '.dockerignore').read_text(encoding='utf-8').splitlines()
    assert not set(copied) & set(ignored)
    workflow = yaml.safe_load((repo_root / '.github/workflows/test.yml').read_text('utf-8'))
    job = workflow['jobs']['container']
    build = next(step['run'] for step in job['steps'] if 'docker build' in step.get('run', ''))
    stages = re.findall(r'^FROM \S+ AS (\w+)', text, re.MULTILINE)
    target = re.search(r'--target (\w+)', build)
    assert target is not None and target.group(1) in stages
    distros = [entry['distro'] for entry in job['strategy']['matrix']['include']]
    assert distros == ['jazzy', 'lyrical']
