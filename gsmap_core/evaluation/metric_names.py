"""Names of the metrics; separate, so that the command line can show them without loading any."""

METRICS: tuple[str, ...] = (
    'chamfer',
    'raster',
    'consistency',
    'bev_iou',
    'geometry',
    'stability',
    'flicker',
)
#: Metrics that need the frames of a scene together and in order.
SEQUENTIAL_METRICS: tuple[str, ...] = ('consistency', 'stability', 'flicker')
