"""Reads a launch file without running it: what it declares and which programs it starts."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class LaunchFile:
    """What the syntax tree of a launch file says."""

    #: name -> default as source text, None where there is none
    arguments: dict[str, str | None] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    #: (package, executable) of every node
    nodes: list[tuple[str, str]] = field(default_factory=list)
    #: literal keys of parameter dictionaries, per executable
    parameters: dict[str, set[str]] = field(default_factory=dict)
    #: files named relative to the share folder, e.g. ('config', 'gsmap.rviz')
    share_files: list[tuple[str, ...]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _share_parts(node: ast.AST) -> tuple[str, ...] | None:
    """Return the parts of `SHARE / 'a' / 'b'`."""
    if isinstance(node, ast.Name):
        return () if node.id == 'SHARE' else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        left = _share_parts(node.left)
        if left is not None and isinstance(node.right, ast.Constant):
            return (*left, str(node.right.value))
    return None


def read_launch_file(path: Path) -> LaunchFile:
    """Read the syntax tree of a launch file."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    result = LaunchFile()
    # Dictionaries that are filled by name (`overrides['rig.file'] = ...`).
    keyed: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            result.names.add(node.id if isinstance(node, ast.Name) else node.attr)
        target = getattr(node, 'target', None) or (getattr(node, 'targets', None) or [None])[0]
        value = getattr(node, 'value', None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            keys = {str(key.value) for key in value.keys if isinstance(key, ast.Constant)}
            keyed.setdefault(target.id, set()).update(keys)
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            assert isinstance(target.value, ast.Name)
            keyed.setdefault(target.value.id, set()).add(str(target.slice.value))
        parts = _share_parts(node)
        if parts and len(parts) >= 2:
            result.share_files.append(parts)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        keywords = _keywords(node)
        if node.func.id == 'DeclareLaunchArgument':
            name = ast.literal_eval(node.args[0])
            default = keywords.get('default_value')
            result.arguments[name] = None if default is None else ast.unparse(default)
            result.descriptions[name] = ast.literal_eval(keywords['description'])
        if node.func.id == 'Node':
            executable = ast.literal_eval(keywords['executable'])
            result.nodes.append((ast.literal_eval(keywords['package']), executable))
            found: set[str] = set()
            parameters = keywords.get('parameters')
            assert isinstance(parameters, ast.List)
            for item in parameters.elts:
                if isinstance(item, ast.Dict):
                    found |= {str(k.value) for k in item.keys if isinstance(k, ast.Constant)}
                elif isinstance(item, ast.Name):
                    found |= keyed[item.id]
            result.parameters[executable] = found
    return result


def documented_arguments(page: Path, heading: str) -> dict[str, str]:
    """Return the argument table below a heading: name -> default as shown, without backticks."""
    section = page.read_text(encoding='utf-8').split(f'### {heading}\n')[1].split('\n#')[0]
    rows = [line.split('|')[1:-1] for line in section.splitlines() if line.startswith('| `')]
    return {row[0].strip().strip('`'): row[1].strip().strip('`') for row in rows}
