"""What runs around a node: callbacks that fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gsmap_ros.node_main import spin_on


class Executor:
    """Fails as often as it is told."""

    def __init__(self, num_failures: int) -> None:
        self.num_failures = num_failures

    def spin_once(self, timeout_sec: float) -> None:
        if self.num_failures:
            self.num_failures -= 1
            raise OverflowError('a callback of the node')


def make_node(lives_on: bool) -> tuple[Any, list[str]]:
    said: list[str] = []
    logger = SimpleNamespace(error=said.append)
    return SimpleNamespace(lives_on=lives_on, get_logger=lambda: logger), said


def test_a_callback_that_fails_is_logged_and_the_node_goes_on() -> None:
    node, said = make_node(True)
    executor = Executor(2)
    counts = [0]
    for _ in range(3):
        counts.append(spin_on(executor, node, 0.0, counts[-1]))
    assert counts == [0, 1, 2, 0]
    assert len(said) == 2 and 'OverflowError: a callback of the node' in said[0]


def test_a_node_that_only_fails_ends() -> None:
    node, said = make_node(True)
    executor, num_failures = Executor(1000), 0
    with pytest.raises(OverflowError):
        while True:
            num_failures = spin_on(executor, node, 0.0, num_failures)
    assert len(said) == 100


def test_other_nodes_end_with_the_first_failure() -> None:
    node, said = make_node(False)
    with pytest.raises(OverflowError):
        spin_on(Executor(1), node, 0.0)
    assert said == []
