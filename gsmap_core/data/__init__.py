"""Drives: where frames and ground truth come from, and the bag that every source is turned into."""
