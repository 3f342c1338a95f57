"""One parameter of a node: everything that declaring, checking and documenting it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gsmap_core.errors import ConfigError

Value = bool | int | float | str | list[str]

_TYPE_NAMES = {bool: 'bool', int: 'int', float: 'float', str: 'string', list: 'string array'}


@dataclass(frozen=True)
class ParameterRecord:
    """Everything about one parameter.

    Args:
        name: lower case, dots for groups, unit as suffix.
        default: decides the type; an unset string array is `['']`, because ROS cannot tell the
            type of an empty one.
        description: one sentence, ends with the unit where there is one.
        minimum: smallest allowed number.
        maximum: largest allowed number.
        choices: allowed texts.
        is_structural: may only change before configure.
        is_path: a file, or the name of a shipped one (letters, digits, `_` and `-`). While the
            node runs, only files in the allowed directories are taken: whoever reaches the
            parameter service must not make the node read any file of the machine.
        is_fixed: decided when the node starts.
    """

    name: str
    default: Value
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    is_structural: bool = True
    is_path: bool = False
    is_fixed: bool = False

    @property
    def type_name(self) -> str:
        """The type as ROS users call it."""
        return _TYPE_NAMES[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words, or empty."""
        if self.choices:
            return ', '.join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f'{self.minimum:g} to {self.maximum:g}'
        return ''

    def check(self, value: Any) -> None:
        """Check type and range of a value.

        Raises:
            ConfigError: not allowed; the sentence names parameter, value and what is allowed.
        """
        expected = f'expected {self.type_name}' + (f' ({self.allowed})' if self.allowed else '')
        if type(self.default) is list:
            is_right = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        else:
            is_right = type(value) is type(self.default)
        if not is_right:
            hint = ''
            if type(value) is int and type(self.default) is float:
                hint = f'; write {value}.0'
            raise ConfigError(
                f"parameter '{self.name}' is {value!r} ({type(value).__name__}); {expected}{hint}"
            )
        is_allowed = not self.choices or value in self.choices
        if isinstance(value, float) and not math.isfinite(value):
            is_allowed = False
        if self.minimum is not None and value < self.minimum:
            is_allowed = False
        if self.maximum is not None and value > self.maximum:
            is_allowed = False
        if not is_allowed:
            raise ConfigError(f"parameter '{self.name}' is {value!r}; {expected}")


#: Belongs to every node with parameters that are paths and may change while it runs.
FILES_DIRECTORY = ParameterRecord(
    'files.directory',
    '',
    'Files that are named while the node runs must lie in it; empty: where those lie that were '
    'named at its start.',
    is_fixed=True,
)
