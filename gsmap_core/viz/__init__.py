"""Pictures and videos of maps and camera frames; needs no display."""
