"""Files in, candidates out: the series and image files of a study."""
