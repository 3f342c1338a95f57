"""Drives: where frames and ground truth come from, and the bag that each is turned into."""
