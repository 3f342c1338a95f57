"""Running a trained model: camera sets in, vector maps out. Knows neither training nor data."""
