"""`gsmap import-weights`: official MapTR weights become a checkpoint of this package."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('file', help='published .pth, or .safetensors with the same names')
    parser.add_argument(
        '--config', required=True, metavar='NAME', help='the configuration it belongs to'
    )
    parser.add_argument(
        '--out', metavar='FILE', help='checkpoint to write; omitted: FILE with .safetensors'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(args: argparse.Namespace) -> int:
    """Import and say what was switched on."""
    from gsmap_core.config import load_model_config, to_plain
    from gsmap_core.errors import CheckpointError
    from gsmap_core.models.checkpoint import save_checkpoint
    from gsmap_core.models.import_official import import_official
    from gsmap_core.models.mapper import count_parameters

    source = Path(args.file)
    out = Path(args.out) if args.out else source.with_suffix('.safetensors')
    if out.suffix != '.safetensors' or (out.exists() and out.samefile(source)):
        raise CheckpointError(
            f"checkpoint '{out}' is not a new .safetensors file; give another --out"
        )
    model = import_official(source, args.config)
    own = to_plain(load_model_config(args.config))
    options = dict(_differences(own, to_plain(model.config)))
    save_checkpoint(
        out,
        model,
        {
            'source': source.name,
            'source_sha256': hashlib.sha256(source.read_bytes()).hexdigest(),
            'official_options': json.dumps(options),
        },
    )
    report = {
        'checkpoint': str(out),
        'config': model.config.name,
        'total_parameters': count_parameters(model)['total'],
        'official_options': options,
    }
    if args.json:
        print(json.dumps(report))
        return 0
    print(f'{out}: {model.config.name}, {report["total_parameters"]:,} parameters')
    print('as published, unlike our own configuration:')
    print('\n'.join(f'  {key}: {json.dumps(value)}' for key, value in options.items()))
    return 0


def _differences(own: dict, official: dict, prefix: str = '') -> list[tuple[str, object]]:
    """Return the options in which the imported model differs from our own configuration."""
    found: list[tuple[str, object]] = []
    for key, value in official.items():
        if isinstance(value, dict) and isinstance(own[key], dict):
            found += _differences(own[key], value, f'{prefix}{key}.')
        elif value != own[key]:
            found.append((prefix + key, value))
    return found
