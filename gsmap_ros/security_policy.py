"""The SROS 2 policy of the lifecycle nodes, from the records of their topics and services.

`python -m gsmap_ros.security_policy --cameras cam_front cam_back --namespace /car` prints the one
of a vehicle; the shipped file is for the cameras of the example rig. What is not listed is denied.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from xml.etree import ElementTree

from gsmap_ros.interface import (
    INTERFACES,
    LIFECYCLE_SERVICES,
    LIFECYCLE_TOPICS,
    STANDARD_SERVICES,
    STANDARD_TOPICS,
    is_wanted,
    resolve,
)

_VERSION = '0.2.0'
_NODES = ('mapping', 'map_builder')
#: Parameter values that decide which topics the node has, with their defaults.
DEFAULTS = {
    'image_transport': 'compressed',
    'images_rectified': 'true',
    'pose_source': 'tf',
    'use_sim_time': 'false',
}


def policy_xml(
    cameras: Sequence[str], namespace: str = '/', values: dict[str, str] | None = None
) -> str:
    """Return the policy of a mapping node and a map builder, an enclave each.

    Args:
        cameras: their namespaces, relative to that of the node.
        namespace: of the nodes.
        values: of the parameters in `DEFAULTS` that differ.
    """
    wanted = {**DEFAULTS, **(values or {})}
    policy = ElementTree.Element('policy', version=_VERSION)
    enclaves = ElementTree.SubElement(policy, 'enclaves')
    for node in _NODES:
        path = resolve(node, node, namespace)
        profiles = ElementTree.SubElement(
            ElementTree.SubElement(enclaves, 'enclave', path=path), 'profiles'
        )
        profile = ElementTree.SubElement(profiles, 'profile', ns=namespace, node=node)
        for kind, right, names in _rights(node, wanted):
            group = ElementTree.SubElement(profile, kind, {right: 'ALLOW'})
            full = {
                resolve(name, node, namespace, camera)
                for name in names
                for camera in (cameras if '<camera>' in name else ('',))
            }
            for name in sorted(full):
                ElementTree.SubElement(group, kind.removesuffix('s')).text = name
    ElementTree.indent(policy)
    body = ElementTree.tostring(policy, encoding='unicode')
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _rights(node: str, values: dict[str, str]) -> list[tuple[str, str, list[str]]]:
    """Return kind, right and names of everything that a node does."""
    interface = INTERFACES[f'{node}_node']
    publish, subscribe = [*STANDARD_TOPICS, *LIFECYCLE_TOPICS], ['/parameter_events']
    for topic in interface.topics:
        if is_wanted(topic, values):
            (publish if topic.is_published else subscribe).append(topic.name)
    reply = [*(s.name for s in interface.services), *STANDARD_SERVICES, *LIFECYCLE_SERVICES]
    return [
        ('topics', 'subscribe', subscribe),
        ('topics', 'publish', publish),
        ('services', 'reply', reply),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a policy."""
    parser = argparse.ArgumentParser(
        prog='python -m gsmap_ros.security_policy', description='SROS 2 policy of the nodes.'
    )
    parser.add_argument('--cameras', nargs='+', required=True, help='namespaces of the cameras')
    parser.add_argument('--namespace', default='/', help='of the node')
    for name, default in DEFAULTS.items():
        parser.add_argument(f'--{name.replace("_", "-")}', default=default, help=default)
    given = vars(parser.parse_args(arguments))
    values = {name: given[name] for name in DEFAULTS}
    sys.stdout.write(policy_xml(given['cameras'], given['namespace'], values))


if __name__ == '__main__':
    main()
