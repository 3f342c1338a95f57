"""Gaussian map primitives and their rasterisation, a plain reference beside the fast version."""
