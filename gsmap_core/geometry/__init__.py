"""Rigid transforms, cameras, the BEV grid and polylines. No learning, no I/O."""
