"""Matching of predictions to ground truth and the named losses."""
