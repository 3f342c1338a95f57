"""Records of what a node says and hears; names are relative (`~/` private), as in the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TopicRecord:
    """One topic of a node.

    Args:
        name: see the module.
        type: `package/msg/Name`.
        is_published: by the node; else it subscribes.
        qos: in words.
        content: what it carries.
        when: parameter values under which the node has it; empty: always. Each is (name, value).
    """

    name: str
    type: str
    is_published: bool
    qos: str
    content: str
    when: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ServiceRecord:
    """One service that a node offers.

    Args:
        name: see the module.
        type: `package/srv/Name`.
        content: what it does.
    """

    name: str
    type: str
    content: str


@dataclass(frozen=True)
class StatusRecord:
    """One status in `/diagnostics`.

    Args:
        name: of the component; the node's name stands before it.
        content: what its sentence tells, and what makes it WARN, ERROR or STALE.
        values: keys and what they mean; `<...>` stands for anything, keys that end in `?` are not
            always there.
    """

    name: str
    content: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class NodeInterface:
    """Everything a node says and hears.

    Args:
        topics: beside those that every node has.
        services: beside those that every lifecycle node has.
        statuses: in `/diagnostics`.
    """

    topics: tuple[TopicRecord, ...]
    services: tuple[ServiceRecord, ...] = ()
    statuses: tuple[StatusRecord, ...] = field(default=())


DIAGNOSTICS = TopicRecord(
    '/diagnostics',
    'diagnostic_msgs/msg/DiagnosticArray',
    True,
    'reliable, volatile, 10',
    'State of the node, once a second.',
)
CLOCK = TopicRecord(
    '/clock',
    'rosgraph_msgs/msg/Clock',
    False,
    'best effort, volatile, 1',
    'Time of a replay or simulation.',
    (('use_sim_time', 'true'),),
)
#: Written by `worker_status` for both nodes that ask for poses.
POSE = StatusRecord(
    'pose',
    'ERROR: the last lookup failed, with the text of the exception. STALE: none yet.',
    {
        'source': 'what answers',
        'fixed_frame': 'frame of the ego pose',
        'last_error': 'of the last lookup',
    },
)
