"""The report of a collection: the dataset's card, and per suite what became of the claims."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsmap_core.cli.benchmark_labels import label_lines
from gsmap_core.cli.benchmark_occlusion import occlusion_columns
from gsmap_core.cli.benchmark_records import Pretrained
from gsmap_core.cli.benchmark_report import changes_of, pretraining_lines
from gsmap_core.evaluation.claims import CONFIDENCE, PairedDifference, paired_difference
from gsmap_core.evaluation.comparison import comparison_table
from gsmap_core.training.benchmark_dataset import BenchmarkDataset, load_dataset
from gsmap_core.training.collection import CollectedSuite, Collection
from gsmap_core.training.suite import Suite
from gsmap_core.viz.differences import Difference

Records = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Collected:
    """A suite of a collection.

    Args:
        item: as the collection has it.
        suite: restricted to its rows.
        records: of their runs.
        pretrained: records of what they started from.
    """

    item: CollectedSuite
    suite: Suite
    records: Records
    pretrained: Pretrained = field(default_factory=dict)


def write_page(collection: Collection, collected: list[Collected], picture: Path | None) -> str:
    """Return the report of a collection as Markdown.

    Args:
        collection: which rows.
        collected: its suites with their records.
        picture: plot of the differences, as the page will name it, or None.
    """
    dataset = load_dataset(collection.dataset)
    runs = sum(len(row) for part in collected for row in part.records.values())
    wanted = sum(len(part.suite.rows) for part in collected) * len(collection.seeds)
    lines = [
        f'# {collection.title}',
        '',
        f'Written by `gsmap benchmark report {collection.name}` from the records of {runs} of '
        f'{wanted} runs; not typed.',
        '',
        f'Every row of a table is trained with the same drives, steps, batches and augmentation, '
        f'with the seeds {", ".join(map(str, collection.seeds))}. A claim is a difference that a '
        'paper states. It is compared with the difference between our rows, seed by seed: '
        f'reproduced, if the interval of {CONFIDENCE:.0%} around the mean (Student, paired by '
        'seed) lies on the published side of 0; not reproduced, if it lies on the other; else '
        'within noise. Published differences come from real roads and much longer trainings: only '
        'their sign is tried. Scores are fractions, the mean over the seeds ± half their range.',
        '',
        '| Paper | claims | reproduced | not reproduced | within noise | not decided |',
        '|---|---|---|---|---|---|',
        *_overview(collected),
    ]
    if picture is not None:
        lines += ['', f'![Published differences and ours]({picture.as_posix()})']
    lines += ['', f'## {dataset.title}', '', dataset.card.strip(), '', *_parts(dataset)]
    for part in collected:
        item, suite, records = part.item, part.suite, part.records
        lines += ['', f'## {item.paper}: {suite.title}', '', _conditions(suite)]
        lines += pretraining_lines(suite, part.pretrained)
        runs_of_part = [record for row in records.values() for record in row]
        lines += ['', *comparison_table(records, occlusion_columns(runs_of_part))]
        claims = _claim_lines(suite, records)
        if claims:
            lines += ['', *claims]
        lines += label_lines(suite, records)
        if item.learned:
            lines += ['', item.learned.strip()]
    return '\n'.join(lines) + '\n'


def differences(collected: list[Collected]) -> list[Difference]:
    """Return what the plot shows: every claim about chamfer mAP that has runs."""
    found = []
    for part in collected:
        records = part.records
        for pair in part.suite.comparisons:
            published = part.suite.published(pair)
            ours = paired_difference(records[pair.row], records[pair.host], ('chamfer_map',))
            if published is not None and ours.count:
                name = f'{part.item.paper}: {pair.row} against {pair.host}'
                found.append(Difference(name, published / 100, ours.mean, ours.half_width))
    return found


def _claims(suite: Suite, records: Records) -> list[tuple[str, str, float, PairedDifference, str]]:
    """Return every claim: source, what, published difference, ours, note."""
    found = []
    for pair in suite.comparisons:
        scores = (
            ('chamfer mAP', 'chamfer_map', suite.published(pair)),
            ('raster mAP', 'raster_map', pair.published_raster),
        )
        for title, key, published in scores:
            if published is not None:
                ours = paired_difference(records[pair.row], records[pair.host], (key,))
                what = f'`{pair.row}` against `{pair.host}`, {title}'
                found.append((pair.source, what, published / 100, ours, pair.note))
    return found


def _claim_lines(suite: Suite, records: Records) -> list[str]:
    claims = _claims(suite, records)
    if not claims:
        return []
    lines = [
        '| Claim | source | published | ours | seeds | verdict |',
        '|---|---|---|---|---|---|',
    ]
    notes = []
    for source, what, published, ours, note in claims:
        verdict = ours.verdict(published)
        lines.append(
            f'| {what} | {source or "-"} | {published:+.3f} | {ours.text()} | {ours.count} | '
            f'{verdict} |'
        )
        if note and verdict in ('not reproduced', 'within noise') and note not in notes:
            notes.append(note)
    return lines + [line for note in notes for line in ('', note)]


def _overview(collected: list[Collected]) -> list[str]:
    counts: dict[str, dict[str, int]] = {}
    for part in collected:
        mine = counts.setdefault(part.item.paper, {})
        for _, _, published, ours, _ in _claims(part.suite, part.records):
            verdict = ours.verdict(published)
            mine[verdict] = mine.get(verdict, 0) + 1
    decided = ('reproduced', 'not reproduced', 'within noise')
    return [
        f'| {paper} | {sum(mine.values())} | '
        + ' | '.join(str(mine.get(verdict, 0)) for verdict in decided)
        + f' | {sum(n for verdict, n in mine.items() if verdict not in decided)} |'
        for paper, mine in counts.items()
    ]


def _parts(dataset: BenchmarkDataset) -> list[str]:
    lines = [
        '| Part | for | towns | drives | kind | cameras | light | s | Hz | px |',
        '|---|---|---|---|---|---|---|---|---|---|',
    ]
    for name, part in dataset.parts.items():
        lines.append(
            f'| `{name}` | {part.split} | {part.seeds.start} to {part.seeds.stop - 1} | '
            f'{part.towns * (part.repeat + 1)} | {part.setting} | `{part.rig}` | '
            f'{part.conditions} | {part.duration_s:g} | {part.rate_hz:g} | {part.width_px} |'
        )
    return lines


def _conditions(suite: Suite) -> str:
    drives = suite.drives
    text = (
        f'Suite `{suite.name}`: {suite.steps} steps with recipe `{suite.recipe}`'
        f'{changes_of(suite)}, {drives.train.towns} towns to train on, '
        f'{drives.test.towns} to test on ({drives.setting}, {drives.duration_s:g} s at '
        f'{drives.rate_hz:g} Hz, rig `{drives.rig}`).'
    )
    others = sorted({suite.recipe_of(row) for row in suite.rows} - {suite.recipe})
    if others:
        text += f' Rows that need it have another recipe of the same length ({", ".join(others)}).'
    return text
