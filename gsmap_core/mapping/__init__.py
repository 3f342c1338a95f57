"""Local maps of many frames fused into one map of the drive."""
