"""What README and docs claim can be checked: tables, links, commands."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from gsmap_core.cli.main import available_verbs, build_parser

PAGES = ('README.md', *(f'docs/{name}.md' for name in (
    'installation', 'ros', 'data', 'own-vehicle', 'training', 'evaluation', 'semi-supervised',
    'interactionmap', 'architecture', 'map-building')))  # fmt: skip


def read(root: Path, page: str) -> str:
    return (root / page).read_text(encoding='utf-8')


@pytest.mark.parametrize('page', ['README.md', 'docs/ros.md'])
def test_parameter_tables_are_up_to_date(repo_root: Path, page: str) -> None:
    spec = importlib.util.spec_from_file_location(
        'update_docs', repo_root / 'tools/update_docs.py'
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = read(repo_root, page)
    assert '| `score_threshold` |' in text
    assert module.with_tables(text) == text, 'run: make docs'
    if page == 'docs/ros.md':
        assert '| `~/reset` |' in text and '`maps_unheard`' in text
        policy = (repo_root / module.POLICY).read_text(encoding='utf-8')
        assert module.shipped_policy() == policy, 'run: make docs'


def test_the_checklist_names_tests_that_exist(repo_root: Path) -> None:
    """Every numbered row is there and names a test of the suite, or says why there is none."""
    text = read(repo_root, 'docs/ros.md').split('\n## Checklist\n')[1]
    sections = re.split(r'\n### ', text)[1:4]
    counts = [len(re.findall(r'^\| \d+ \|', section, re.MULTILINE)) for section in sections]
    assert counts == [12, 8, 13]
    for path, name in re.findall(r'`(test/[\w/]+\.py)(?:::(\w+))?`', text):
        content = (repo_root / path).read_text(encoding='utf-8')
        assert not name or f'\ndef {name}(' in content, f'{path}::{name}'


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(repo_root: Path, page: str) -> None:
    folder = (repo_root / page).parent
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', read(repo_root, page)):
        if not target.startswith('http'):
            assert (folder / target).exists(), f'{page}: {target}'


def commands(text: str) -> list[list[str]]:
    """Every `gsmap ...` in code, with line continuations joined, up to a shell operator."""
    blocks = re.findall(r'```\w*\n(.*?)```', text, re.DOTALL)
    lines = [
        line for block in blocks for line in block.replace('\\\n', ' ').splitlines()
    ] + re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL))
    found = []
    for line in lines:
        match = re.match(r'(?:\$ )?(?:\.venv/bin/)?gsmap (.*)', line.strip())
        if match:
            words = shlex.split(re.split(r' (?:#|\||&&|>)', match[1])[0])
            found.append(words)
    return found


@pytest.mark.parametrize('page', PAGES)
def test_commands_are_understood(
    repo_root: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line accepts every command as it is printed."""
    for words in commands(read(repo_root, page)):
        assert words[0] in {*available_verbs(), '--help', '--version'}, words
        if len(words) == 1 or words[0].startswith('-'):
            continue
        try:
            build_parser(words[0]).parse_args(words)
        except SystemExit as stopped:
            assert stopped.code == 0, f'{page}: gsmap {" ".join(words)}: {capsys.readouterr().err}'


def test_commands_are_found() -> None:
    text = 'Say `gsmap info x.mcap`:\n```\ngsmap synth --out a \\\n  --towns 2 && ls\n```\n'
    assert commands(text) == [['synth', '--out', 'a', '--towns', '2'], ['info', 'x.mcap']]


@pytest.mark.parametrize('page', PAGES)
def test_no_promises_are_left_open(repo_root: Path, page: str) -> None:
    assert not re.search(r'TODO|TBD|XXX|coming soon', read(repo_root, page))
