"""ROS 2 nodes of gsmap: convert, synchronise, look up TF, call `gsmap_core`, publish.

The generated message classes (`gsmap_ros.msg`) live in the package's interface overlay, this code
may run from a checkout: both folders are made one package here.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
