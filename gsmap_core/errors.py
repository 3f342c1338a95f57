"""Exceptions that a user of the package can meet.

Every message says what was given, what was expected and what to do. Library code raises; only the
command line exits.
"""


class GsmapError(Exception):
    """Base of every error raised on purpose because of the input or the environment."""


class ConfigError(GsmapError, ValueError):
    """A YAML file, parameter or rig has an unknown key, a wrong type or an impossible value."""


class DataError(GsmapError, ValueError):
    """A recording, map file or dataset cannot be read as what it claims to be."""


class CalibrationError(GsmapError, ValueError):
    """A camera calibration is missing, uncalibrated (K[0] == 0) or of an unsupported model."""


class CheckpointError(GsmapError, ValueError):
    """A checkpoint is missing, truncated, or belongs to another configuration."""


class TransformError(GsmapError, LookupError):
    """A pose or transform that was asked for is not available at that time."""


class EnvironmentProblemError(GsmapError, RuntimeError):
    """Something to install or build is missing; the message names the command that does it."""


class TrainingError(GsmapError, RuntimeError):
    """A training cannot go on (it diverged, or what is to be resumed does not fit)."""
