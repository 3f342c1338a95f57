"""The report of a suite as Markdown, written from its records."""

from __future__ import annotations

from typing import Any

from gsmap_core.cli.benchmark_labels import label_lines
from gsmap_core.cli.benchmark_occlusion import occlusion_columns
from gsmap_core.cli.benchmark_records import Pretrained
from gsmap_core.evaluation.comparison import Column, comparison_table, difference_table
from gsmap_core.training.suite import Suite, SuiteDrives


def write_report(
    suite: Suite,
    records: dict[str, list[dict[str, Any]]],
    pretrained: Pretrained | None = None,
) -> str:
    """Return the report as Markdown: settings, scores, differences, covariances.

    Args:
        suite: the rows.
        records: of their runs.
        pretrained: records of what they started from.
    """
    drives = suite.drives
    more = [
        Column(f'chamfer mAP {title}', ('extra', title, 'chamfer_map'))
        for title in suite.extra_tests
    ]
    published = {name: row.paper_map for name, row in suite.rows.items() if row.paper_map}
    runs = [record for row in records.values() for record in row]
    more += occlusion_columns(runs)
    lines = [
        f'# {suite.title}',
        '',
        f'Written by `gsmap benchmark report {suite.name}` from the records of {len(runs)} runs; '
        'not typed.',
        '',
        f'Every row: {suite.steps} steps, {_recipes(suite)}{changes_of(suite)}, seeds '
        f'{", ".join(map(str, suite.seeds))}; trained on {drives.train.towns} {drives.setting} '
        f'towns from seed {drives.train.first_seed}, scored on {drives.test.towns} towns from '
        f'seed {drives.test.first_seed} (drives of {drives.duration_s:g} s at {drives.rate_hz:g} '
        f'Hz{_rig(drives)}, ego frame, x from -30 to 30 m, y from -15 to 15 m). Every test drive '
        'is mapped as one stream in the order of time. Scores are fractions, the mean '
        'over the seeds ± half their range. Chamfer columns come first, raster columns second; '
        'the turning angle is that of matched boundaries.',
        *pretraining_lines(suite, pretrained or {}),
        *_explanations(suite, runs),
        '',
        *comparison_table(records, more),
        '',
        'A difference that does not exceed the larger range of the two rows is called noise.',
        '',
        *difference_table(
            records, [(pair.row, pair.host) for pair in suite.comparisons], more, published
        ),
    ]
    lines += label_lines(suite, records)
    truth = [r['turning']['true_deg_per_m'] for r in runs if r['turning']['true_deg_per_m']]
    if truth:
        lines += [
            '',
            f'The true boundaries turn by {sum(truth) / len(truth):.1f} degrees per metre.',
        ]
    lines += _covariance_lines(records)
    return '\n'.join(lines) + '\n'


def pretraining_lines(suite: Suite, pretrained: Pretrained) -> list[str]:
    """Return what the rows start from; nothing where that is random weights."""
    before = suite.pretraining
    if before is None:
        return []
    text = (
        f'Every row starts from what it shares with the weights of `{before.config}` after '
        f'{before.steps} steps '
    )
    if before.setting is not None:
        text += (
            f'in {before.setting} towns (seed {before.seed}, drives of {before.duration_s:g} s)'
        )
    else:
        text += f'on its labelled drives (once for each share of labels, seed {before.seed})'
    scores = [
        f'{record["chamfer_map"]:.3f}' + ('' if before.setting else f' at {share:g} %')
        for share, record in pretrained.items()
    ]
    if scores:
        text += f', where these score {", ".join(scores)} chamfer mAP on test towns'
    return ['', f'{text}.']


def changes_of(suite: Suite) -> str:
    """Return what all rows change in their recipe; nothing where they change nothing."""
    changes = ', '.join(f'`{change}`' for change in suite.overrides)
    return f' with {changes}' if changes else ''


def _recipes(suite: Suite) -> str:
    """Return which recipes are used, and by which rows where there are several."""
    rows: dict[str, list[str]] = {}
    for row in suite.rows:
        rows.setdefault(suite.recipe_of(row), []).append(row)
    if len(rows) == 1:
        return f'recipe `{suite.recipe}`'
    others = [
        f'`{recipe}` ({", ".join(f"`{name}`" for name in names)})'
        for recipe, names in rows.items()
        if recipe != suite.recipe
    ]
    return f'recipe `{suite.recipe}` or {", ".join(others)}'


def _rig(drives: SuiteDrives) -> str:
    """Return rig and light where they are not the usual ones."""
    rig = '' if drives.rig == SuiteDrives.rig else f', rig `{drives.rig}`'
    if drives.conditions == SuiteDrives.conditions:
        return rig
    return f'{rig}, light and weather `{drives.conditions}`'


def _explanations(suite: Suite, runs: list[dict[str, Any]]) -> list[str]:
    """Return what the columns mean that not every comparison has."""
    texts = []
    if suite.extra_tests:
        towns = ', '.join(f'{title}: `{kind}`' for title, kind in suite.extra_tests.items())
        texts.append(f'The same weights are also scored in the same towns otherwise ({towns}).')
    if any('by_occlusion' in run for run in runs):
        texts.append(
            'Each third of the test frames is also scored apart, by how much of the line length '
            'in view vehicles hide there.'
        )
    if any('flicker' in run for run in runs):
        texts.append(
            'Flicker counts births, deaths and changes of the id per frame among true elements '
            'that stay in range, with predictions of a score above the threshold; found is the '
            'share of these elements that has a prediction.'
        )
    if any('speed' in run for run in runs):
        texts.append(
            f'Frames per second are measured after training on one machine ({_machine(runs)}), '
            f'in turn with `{suite.speed_host}`; of host is the ratio of the two, which other '
            'load on the machine changes little.'
        )
    return ['', ' '.join(texts)] if texts else []


def _machine(runs: list[dict[str, Any]]) -> str:
    """Return the devices that were measured on, and how many threads they had."""
    found = {
        run['environment']['gpu'] or f'CPU, {run["environment"]["torch_threads"]} threads'
        for run in runs
        if 'speed' in run
    }
    return '; '.join(sorted(found))


def _covariance_lines(records: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the table of predicted sigmas against lateral errors, of the rows that have any."""
    found = {
        name: [record['reliability'] for record in row if 'reliability' in record]
        for name, row in records.items()
    }
    found = {name: values for name, values in found.items() if values}
    if not found:
        return []
    lines = [
        '',
        'Covariances: lateral error and predicted sigma of matched vertices (root mean squares), '
        'the share within one sigma (0.68 expected), and the factor that would calibrate them.',
        '',
        '| | vertices | error m | sigma m | within 1 sigma | factor |',
        '|---|---|---|---|---|---|',
    ]
    for name, values in found.items():
        mean = [
            sum(pick(v) for v in values) / len(values)
            for pick in (
                lambda v: v['num_vertices'],
                lambda v: v['error_m'],
                lambda v: v['sigma_m'],
                lambda v: v['coverage']['1'],
                lambda v: v['sigma_factor'],
            )
        ]
        lines.append(
            f'| `{name}` | {mean[0]:.0f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.2f} | '
            f'{mean[4]:.2f} |'
        )
    return lines
