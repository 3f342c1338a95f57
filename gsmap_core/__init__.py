"""Online HD mapping: cameras in, vectorised map elements out. Pure Python and PyTorch, no ROS."""

__version__ = '0.1.0'
