"""Operators of the network, a plain PyTorch reference beside any fast version."""
