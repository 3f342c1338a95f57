"""Strict reading of configurations: YAML and plain values into dataclasses, and back.

What the values mean is decided by the dataclasses (`config`, `part_configs`, the recipes).
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from gsmap_core.errors import ConfigError

T = TypeVar('T')


def _describe(hint: Any) -> str:
    return getattr(hint, '__name__', str(hint).replace('typing.', ''))


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Return a value as the type that the hint asks for, or raise ConfigError naming `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [arg for arg in args if arg is not type(None)]
        if len(options) == 1:
            return _convert(value, options[0], where)
    elif origin is Literal:
        if value in args:
            return value
        raise ConfigError(
            f'{where}: {value!r} is not allowed; expected one of {", ".join(map(repr, args))}'
        )
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            if len(args) == 2 and args[1] is Ellipsis:
                return tuple(
                    _convert(item, args[0], f'{where}[{i}]') for i, item in enumerate(value)
                )
            if len(value) == len(args):
                return tuple(
                    _convert(item, arg, f'{where}[{i}]')
                    for i, (item, arg) in enumerate(zip(value, args, strict=True))
                )
            raise ConfigError(f'{where}: has {len(value)} entries; expected {len(args)}')
    elif origin is dict:
        if isinstance(value, dict):
            return {
                _convert(key, args[0], f'{where} key'): _convert(item, args[1], f'{where}.{key}')
                for key, item in value.items()
            }
    elif dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return build_dataclass(typing.cast(type, hint), value, where)
    elif hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, hint):
        return value
    raise ConfigError(
        f'{where}: {value!r} is a {type(value).__name__}; expected {_describe(hint)}'
    )


def build_dataclass(cls: type[T], values: dict[str, Any], where: str) -> T:
    """Build a (nested) dataclass from a mapping, strictly.

    Args:
        cls: dataclass type.
        values: mapping from field names to plain values.
        where: prefix for error messages, e.g. the file name.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a value that the dataclass
            refuses.
    """
    hints = typing.get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(typing.cast(Any, cls)) if item.init]
    for key in values:
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ''
            raise ConfigError(
                f"{where}: unknown key '{key}'{hint}; expected one of {', '.join(names)}"
            )
    converted = {
        key: _convert(value, hints[key], f'{where}.{key}') for key, value in values.items()
    }
    try:
        return cls(**converted)
    except TypeError as error:
        raise ConfigError(f'{where}: {error}') from None
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from None


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not hold a mapping.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(
            f"configuration '{path}' cannot be read: {error.strerror}; give an existing YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration '{path}' is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"configuration '{path}' holds a {type(content).__name__}; expected a mapping of keys"
        )
    return content


def to_plain(config: Any) -> Any:
    """Turn a (nested) dataclass into plain dictionaries and lists, as YAML or JSON hold them."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            item.name: to_plain(getattr(config, item.name))
            for item in dataclasses.fields(config)
            if item.init
        }
    if isinstance(config, (list, tuple)):
        return [to_plain(item) for item in config]
    if isinstance(config, dict):
        return {key: to_plain(item) for key, item in config.items()}
    return config
