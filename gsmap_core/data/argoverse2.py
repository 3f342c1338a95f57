"""The Argoverse 2 sensor dataset as drives: everything public in one place.

`Argoverse2Dataset` finds the logs of a copy of the dataset, whole or in part, and yields each as
an `Argoverse2Drive`: training and evaluation read it, `data.bag` writes it as a bag. Maps, poses
and calibration are read by the `av2` package.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from gsmap_core.data.argoverse2_devkit import POSES_NAME, RING_CAMERAS, require_av2
from gsmap_core.data.argoverse2_drive import (
    LICENCE_NOTICE,
    Argoverse2Drive,
    Argoverse2Options,
    LogProblem,
)
from gsmap_core.data.argoverse2_log import RATES_HZ, Argoverse2Log
from gsmap_core.data.groundtruth_argoverse2 import VARIANTS, Argoverse2TruthOptions
from gsmap_core.errors import ConfigError, DataError, GsmapError
from gsmap_core.structures import CameraRig

__all__ = [
    'LICENCE_NOTICE',
    'PROBLEM_LOGS',
    'RATES_HZ',
    'RING_CAMERAS',
    'SPLITS',
    'VARIANTS',
    'Argoverse2Dataset',
    'Argoverse2Drive',
    'Argoverse2Log',
    'Argoverse2Options',
    'Argoverse2TruthOptions',
    'LogProblem',
    'find_logs',
    'published_samples',
]

_log = logging.getLogger(__name__)

#: Folders of the dataset; they are its original split.
SPLITS: tuple[str, ...] = ('train', 'val', 'test')
#: Logs whose maps do not fit what the cameras see; the published sample lists leave them out.
PROBLEM_LOGS: tuple[str, ...] = (
    '75e8adad-50a6-3245-8726-5e612db3d165',
    '54bc6dbc-ebfb-3fba-b5b3-57f88b4b79ca',
    'af170aac-8465-3d7b-82c5-64147e94af7d',
    '6e106cf8-f6dd-38f6-89c8-9be7a71e7275',
    '01bb304d-7bd8-35f8-bbef-7086b688e35e',
    '453e5558-6363-38e3-bf9b-42b5ba0a6f1d',
)
#: Any of these makes a folder a log.
_SIGNS_OF_A_LOG = (POSES_NAME, 'map', 'sensors')


class Argoverse2Dataset:
    """The logs of a copy of the dataset, by split and id.

    Args:
        root: folder with `train/`, `val/`, `test/`; one with `sensor/` that holds them; a folder
            of logs; or one log.
        splits: names of the splits wanted; None: all.
        logs: ids of the logs wanted; None: all.
        options: how logs are read.
        rig: calibration to use instead of the logs' own.
        with_problem_logs: also take `PROBLEM_LOGS`.

    Raises:
        DataError: the folder is missing or holds no log, or a split or log asked for is not there;
            the message says where it was looked for.
        EnvironmentProblemError: av2 is not installed.
    """

    def __init__(
        self,
        root: str | Path,
        splits: Sequence[str] | None = None,
        *,
        logs: Sequence[str] | None = None,
        options: Argoverse2Options | None = None,
        rig: CameraRig | None = None,
        with_problem_logs: bool = False,
    ) -> None:
        require_av2()
        self.root = Path(root)
        self.options = options or Argoverse2Options()
        self._rig = rig
        found = find_logs(self.root)
        if splits is not None:
            _check_known('split', splits, {_split(path) for path in found}, self.root)
            found = [path for path in found if _split(path) in splits]
        if logs is not None:
            _check_known('log', logs, {path.name for path in found}, self.root)
            found = [path for path in found if path.name in logs]
        #: Logs that are not used, with the reason; broken ones join while drives are made.
        self.problems: list[LogProblem] = []
        if not with_problem_logs:
            self.problems += [
                LogProblem(path.name, 'left out: its map does not fit the images (known)')
                for path in found
                if path.name in PROBLEM_LOGS
            ]
            found = [path for path in found if path.name not in PROBLEM_LOGS]
        self._folders = found

    def __len__(self) -> int:
        """Return the number of logs, broken ones included."""
        return len(self._folders)

    def __iter__(self) -> Iterator[Argoverse2Drive]:
        """Yield the drives by split and id; a log that is broken is added to `problems`."""
        for folder in self._folders:
            try:
                yield self._open(folder)
            except GsmapError as error:
                _log.warning('%s', error)
                problem = LogProblem(folder.name, str(error))
                if problem not in self.problems:
                    self.problems.append(problem)

    @property
    def names(self) -> tuple[str, ...]:
        """Ids of the logs."""
        return tuple(folder.name for folder in self._folders)

    def split_lists(self) -> dict[str, tuple[str, ...]]:
        """Return the original split: ids of the logs by the name of their folder."""
        lists: dict[str, tuple[str, ...]] = {}
        for folder in self._folders:
            lists[_split(folder)] = (*lists.get(_split(folder), ()), folder.name)
        return lists

    def drive(self, name: str) -> Argoverse2Drive:
        """Return one drive.

        Raises:
            DataError: there is no log of that id, or it is broken; the message names the file.
        """
        for folder in self._folders:
            if folder.name == name:
                return self._open(folder)
        raise DataError(f"no log '{name}' in '{self.root}'; it has {', '.join(self.names)}")

    def _open(self, folder: Path) -> Argoverse2Drive:
        return Argoverse2Drive(folder, self.options, rig=self._rig)


def find_logs(root: str | Path) -> list[Path]:
    """Return the folders of the logs below a folder, by split and id.

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    path = Path(root)
    if _is_log(path):
        return [path]
    for pattern in ('*', 'sensor/*/*', '*/*'):
        found = sorted(folder for folder in path.glob(pattern) if _is_log(folder))
        if found:
            return sorted(found, key=lambda folder: (_split_rank(folder), folder))
    raise DataError(
        f"'{path}' holds no Argoverse 2 log; looked for LOG, SPLIT/LOG and sensor/SPLIT/LOG with "
        f'{", ".join(_SIGNS_OF_A_LOG)} inside'
        + ('' if path.is_dir() else ': the folder does not exist')
    )


def published_samples(
    drives: Sequence[Argoverse2Drive], stride: int = 4
) -> list[tuple[Argoverse2Drive, int]]:
    """Return the samples that published numbers are of: every n-th over all drives.

    The samples of all drives are sorted by stamp first, so that drives recorded at the same time
    take turns and the steps inside one drive differ.

    Args:
        drives: all drives of the split, at 10 Hz.
        stride: take every n-th, 4 for MapTR, MapTRv2 and MapTracker.

    Returns:
        Drive and index of the set, by stamp.

    Raises:
        ConfigError: the stride is below 1.

    Source: the sample list of MapTRv2's validation.
    """
    if stride < 1:
        raise ConfigError(f'stride {stride}; expected 1 or more')
    samples = [
        (drive.stamp_ns(index), number, index)
        for number, drive in enumerate(drives)
        for index in range(len(drive))
    ]
    return [(drives[number], index) for _, number, index in sorted(samples)[::stride]]


def _is_log(folder: Path) -> bool:
    # Names that begin with a dot are logs being written, or left by a writer that was killed.
    is_hidden = folder.name.startswith('.')
    return (
        folder.is_dir()
        and not is_hidden
        and any((folder / sign).exists() for sign in _SIGNS_OF_A_LOG)
    )


def _split(folder: Path) -> str:
    return folder.absolute().parent.name


def _split_rank(folder: Path) -> int:
    name = _split(folder)
    return SPLITS.index(name) if name in SPLITS else len(SPLITS)


def _check_known(what: str, wanted: Sequence[str], known: set[str], root: Path) -> None:
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise DataError(
            f"no {what} {', '.join(unknown)} in '{root}'; it has {', '.join(sorted(known))}"
        )
