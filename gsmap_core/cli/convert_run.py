"""Converts scenes to bags, several at a time: what is complete is kept, what fails is listed.

Memory is bounded: a scene in work holds one camera set, and as many are in work as there are
workers.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

#: Key of the bag's metadata that says how it was made.
OPTIONS_KEY = 'conversion'
#: Cameras and files without image are named in a report up to this many.
_NOTED = 3


@dataclass(frozen=True)
class Job:
    """One scene to convert.

    Args:
        scene: its name, and that of its bag.
        num_frames: camera sets.
        open: returns the recording; can be sent to another process.
        path: of the bag; set when the jobs are planned.
    """

    scene: str
    num_frames: int
    open: Callable[[], Any]
    path: Path = Path()


@dataclass(frozen=True)
class Options:
    """How scenes are converted.

    Args:
        lidar: write sweeps.
        limit: at most so many camera sets per scene.
        overwrite: replace bags.
        dry_run: write nothing.
        text: what the bags depend on, in a form to compare.
    """

    lidar: bool = True
    limit: int | None = None
    overwrite: bool = False
    dry_run: bool = False
    text: str = ''


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Args:
        scene: its name.
        state: `written`, `kept` (there already), `planned` (dry run) or `failed`.
        bag: path of the bag; empty for a scene that could not be opened.
        frames: camera sets.
        reason: why it failed; in a dry run what is special.
        duration_s: of the bag [s].
        size_bytes: of the bag.
        topics: messages per topic.
        notes: what the scene lacks, and what was left out of it.
    """

    scene: str
    state: str
    bag: str = ''
    frames: int = 0
    reason: str = ''
    duration_s: float = 0.0
    size_bytes: int = 0
    topics: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, for JSON."""
        values: dict[str, Any] = {
            'scene': self.scene,
            'bag': self.bag,
            'frames': self.frames,
            'state': self.state,
            'written': self.state == 'written',
            'notes': list(self.notes),
        }
        if self.state == 'written':
            values['duration_s'] = self.duration_s
            values['size_bytes'] = self.size_bytes
            values['topics'] = self.topics
        if self.reason:
            values['reason'] = self.reason.strip(' ;')
        return values


def options_of(args: argparse.Namespace) -> Options:
    """Return the options that a command line asks for.

    Raises:
        DataError: a number is not positive.
    """
    from gsmap_core.errors import DataError

    for name, text in (('limit', 'camera sets'), ('workers', 'processes')):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise DataError(f'--{name} {value}; expected a positive number of {text}')
    without = {
        *('verb', 'destination', 'source', 'scenes', 'scenes_file', 'splits', 'workers'),
        *('dry_run', 'overwrite', 'json', 'log_level'),
    }
    made_of = {key: value for key, value in sorted(vars(args).items()) if key not in without}
    return Options(
        lidar=not args.no_lidar,
        limit=args.limit,
        overwrite=args.overwrite,
        dry_run=args.dry_run,
        text=json.dumps(made_of, sort_keys=True),
    )


def wanted_names(args: argparse.Namespace, known: Sequence[str]) -> list[str]:
    """Return the names of the scenes that are asked for, in their order.

    Raises:
        DataError: a name or pattern fits none, or the file of names cannot be read.
    """
    from gsmap_core.errors import DataError

    patterns = list(args.scenes or [])
    if args.scenes_file:
        try:
            text = Path(args.scenes_file).read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"--scenes-file '{args.scenes_file}': {error}") from error
        patterns += [line.strip() for line in text.splitlines() if line.strip()]
    elif not patterns:
        return list(known)
    unknown = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for name in known)]
    if unknown:
        listed = ', '.join(known[:20]) + (', ...' if len(known) > 20 else '')
        raise DataError(
            f"no scene {', '.join(unknown[:5])} in '{args.source}'; it has {listed or 'none'}"
        )
    return [name for name in known if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def plan_jobs(
    args: argparse.Namespace, jobs: Sequence[Job], problems: Sequence[Outcome]
) -> tuple[list[Job], list[Outcome]]:
    """Return what is asked for: jobs, each with the path of its bag, and problems.

    Raises:
        DataError: a name or pattern fits neither.
    """
    known = [*(job.scene for job in jobs), *(problem.scene for problem in problems)]
    wanted = set(wanted_names(args, known))
    folder = Path(args.destination)
    planned = [replace(job, path=folder / job.scene) for job in jobs if job.scene in wanted]
    return planned, [problem for problem in problems if problem.scene in wanted]


def convert_jobs(jobs: Sequence[Job], options: Options, workers: int | None) -> list[Outcome]:
    """Convert scenes and say what became of each, in their order.

    Args:
        jobs: scenes, with paths.
        options: how.
        workers: processes; None: one per core.
    """
    from tqdm import tqdm

    outcomes = {job.scene: known for job in jobs if (known := _without_work(job, options))}
    todo = [job for job in jobs if job.scene not in outcomes]
    total = sum(_num_sets(job, options) for job in todo)
    workers = min(workers or os.cpu_count() or 1, max(len(todo), 1))
    with tqdm(total=total, unit='set', file=sys.stderr, disable=not todo) as bar:
        if workers == 1:
            for job in todo:
                before = bar.n
                bar.set_description(job.scene)

                def show(done: int, _: int, before: int = before) -> None:
                    bar.update(before + done - bar.n)

                outcomes[job.scene] = convert_scene(job, options, show)
        else:
            for job, outcome in _in_processes(todo, options, workers):
                outcomes[job.scene] = outcome
                bar.update(_num_sets(job, options))
    return [outcomes[job.scene] for job in jobs]


def convert_scene(
    job: Job, options: Options, progress: Callable[[int, int], None] | None = None
) -> Outcome:
    """Convert one scene; whatever goes wrong is the outcome."""
    from gsmap_core.data.bag import write_bag
    from gsmap_core.errors import GsmapError

    try:
        _remove_leftovers(job.path)
        recording = job.open()
        summary = write_bag(
            recording,
            job.path,
            lidar=options.lidar,
            progress=progress,
            overwrite=options.overwrite,
            limit=options.limit,
            metadata={OPTIONS_KEY: options.text},
        )
    except GsmapError as error:
        return Outcome(job.scene, 'failed', str(job.path), reason=str(error))
    except Exception as error:
        # A scene that breaks a devkit in a way of its own must not cost the others.
        _log.debug("traceback of scene '%s'", job.scene, exc_info=True)
        reason = f'{type(error).__name__}: {error}'
        return Outcome(job.scene, 'failed', str(job.path), reason=reason)
    return Outcome(
        scene=job.scene,
        state='written',
        bag=str(job.path),
        frames=summary.num_frames,
        duration_s=round(summary.duration_s, 3),
        size_bytes=summary.size_bytes,
        topics=summary.topics,
        notes=_notes(recording, summary.num_frames),
    )


def _without_work(job: Job, options: Options) -> Outcome | None:
    """Return the outcome of a scene for which nothing is written, or None."""
    from gsmap_core.data.bag_metadata import read_custom_metadata

    is_there = job.path.exists()
    if is_there and not options.overwrite:
        try:
            made_as = read_custom_metadata(job.path).get(OPTIONS_KEY)
        except (OSError, ValueError):
            made_as = None
        if made_as == options.text:
            return Outcome(job.scene, 'kept', str(job.path), job.num_frames)
        reason = (
            f"'{job.path}' exists already and was converted with other options "
            f'({made_as or "unknown"}); choose another folder, or --overwrite to replace it'
        )
        return Outcome(job.scene, 'failed', str(job.path), reason=reason)
    if options.dry_run:
        reason = '; replaces the bag that is there' if is_there else ''
        frames = _num_sets(job, options)
        try:
            notes = _notes(job.open(), frames) if job.num_frames else ()
        except Exception as error:
            reason = f'; cannot be opened: {error}'
            return Outcome(job.scene, 'failed', str(job.path), frames, reason)
        return Outcome(job.scene, 'planned', str(job.path), frames, reason, notes=notes)
    return None


def _num_sets(job: Job, options: Options) -> int:
    return job.num_frames if options.limit is None else min(job.num_frames, options.limit)


def _notes(recording: Any, num_frames: int) -> tuple[str, ...]:
    """Return what a recording lacks, where it knows."""
    notes = []
    if hasattr(recording, 'missing_images'):
        missing = [text for i in range(num_frames) for text in recording.missing_images(i)]
        if missing:
            examples = ', '.join(missing[:_NOTED]) + (', ...' if len(missing) > _NOTED else '')
            notes.append(f'{len(missing)} images are missing: {examples}')
    problems = [str(getattr(item, 'reason', item)) for item in getattr(recording, 'problems', ())]
    notes += problems[:_NOTED]
    if len(problems) > _NOTED:
        notes.append(f'and {len(problems) - _NOTED} more')
    return tuple(notes)


def _remove_leftovers(path: Path) -> None:
    """Remove what a conversion of this scene left behind when it was killed."""
    for folder in path.parent.glob(f'.{path.name}.partial-*'):
        shutil.rmtree(folder, ignore_errors=True)


def _in_processes(
    jobs: Sequence[Job], options: Options, workers: int
) -> Iterator[tuple[Job, Outcome]]:
    """Convert in worker processes and yield the scenes as they are finished."""
    with _pool(workers) as pool:
        futures = {pool.submit(convert_scene, job, options): job for job in jobs}
        for future in as_completed(futures):
            job = futures[future]
            try:
                yield job, future.result()
            except BrokenProcessPool:
                reason = 'a worker was ended from outside, most likely because memory ran out'
                yield job, Outcome(job.scene, 'failed', str(job.path), reason=reason)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # A forked copy of a process that has threads cannot use them.
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context('spawn'), initializer=_use_one_thread
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        # What they have begun may take minutes; a bag is written whole or not.
        for process in active_children():
            process.terminate()
        raise
    pool.shutdown()


def _use_one_thread() -> None:
    """Keep OpenCV from starting a thread per core in every worker."""
    import cv2

    cv2.setNumThreads(1)
