"""Message classes by the name of their type, and QoS profiles by the words that bags use."""

from __future__ import annotations

import importlib
from typing import Any

from gsmap_core.errors import EnvironmentProblemError


def message_class(type_name: str) -> type[Any]:
    """Import a message class.

    Args:
        type_name: `package/msg/Name`.

    Raises:
        EnvironmentProblemError: the package is not installed here, or has no such message.
    """
    package, _, rest = type_name.partition('/')
    kind, _, name = rest.partition('/')
    try:
        result: type[Any] = getattr(importlib.import_module(f'{package}.{kind}'), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise EnvironmentProblemError(
            f"message type '{type_name}' is not installed here ({error}); install the ROS package "
            f"'{package}'"
        ) from None
    return result


def qos_profile(reliability: str, durability: str, history: str, depth: int) -> Any:
    """Build an rclpy QoS profile.

    Args:
        reliability: `reliable` or `best_effort`.
        durability: `volatile` or `transient_local`.
        history: `keep_last` or `keep_all`.
        depth: kept messages; at least 1 is taken.
    """
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    is_best_effort, is_latched = reliability == 'best_effort', durability == 'transient_local'
    return QoSProfile(
        depth=max(1, depth),
        history=HistoryPolicy.KEEP_ALL if history == 'keep_all' else HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.BEST_EFFORT
        if is_best_effort
        else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE,
    )
