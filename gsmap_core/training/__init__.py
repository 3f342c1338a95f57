"""Trainer, schedule, checkpoints and resuming, distributed training."""
