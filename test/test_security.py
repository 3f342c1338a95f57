"""Nothing is unpickled or evaluated: what a file or message contains is never run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDERS = ('gsmap_core', 'gsmap_ros', 'launch', 'tools')
MODULES = ('pickle', 'cPickle', '_pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal')
CALLS = ('eval', 'exec', 'compile', '__import__')
#: Functions of other modules that may run what they read.
FUNCTIONS = (
    'yaml.load', 'yaml.load_all', 'yaml.full_load', 'yaml.unsafe_load', 'os.system', 'os.popen',
    'pandas.read_pickle', 'pd.read_pickle',
)  # fmt: skip
WORDS = re.compile(
    r'pickle|dill|joblib|shelve|marshal|\b(eval|exec|compile|__import__|load|load_all|full_load|'
    r'unsafe_load|system|popen)\(|shell'
)


def sources(root: Path) -> list[Path]:
    return [*(p for folder in FOLDERS for p in (root / folder).rglob('*.py')), root / 'setup.py']


def name_of(node: ast.expr) -> str:
    """The dotted name of what is called, or nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f'{name_of(node.value)}.{node.attr}'
    return ''


def constant(call: ast.Call, keyword: str) -> object:
    values = [item.value for item in call.keywords if item.arg == keyword]
    return values[0].value if values and isinstance(values[0], ast.Constant) else None


def findings(text: str) -> list[str]:
    """What a module does that may run foreign content."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split('.')[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or '').split('.')[0] in MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = name_of(node.func)
            if name in CALLS or name in FUNCTIONS:
                found.append(name)
            if name == 'torch.load' and constant(node, 'weights_only') is not True:
                found.append('torch.load without weights_only=True')
            if constant(node, 'allow_pickle') is True or constant(node, 'shell') is True:
                found.append(f'{name} with allow_pickle or shell')
    return found


def test_no_content_is_run(repo_root: Path) -> None:
    texts = {str(path): path.read_text(encoding='utf-8') for path in sources(repo_root)}
    assert len(texts) > 50
    # Most files have none of the words; only the others are parsed.
    suspects = {path: text for path, text in texts.items() if WORDS.search(text)}
    assert suspects
    assert {path: found for path, text in suspects.items() if (found := findings(text))} == {}


@pytest.mark.parametrize(
    'text',
    [
        'import pickle',
        'from pickle import loads',
        'import torch\ntorch.load(path)',
        'torch.load(path, weights_only=False)',
        'np.load(path, allow_pickle=True)',
        'yaml.load(text)',
        'eval(text)',
        'subprocess.run(text, shell=True)',
    ],
)
def test_the_search_finds(text: str) -> None:
    assert findings(text)


def test_the_search_lets_pass() -> None:
    assert findings('torch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)\n') == []
