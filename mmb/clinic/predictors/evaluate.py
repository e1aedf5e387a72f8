"""Evaluation of a predictor that is no bundle: every case with each subset of the modalities that it can segment."""

import logging

logger = logging.getLogger(__name__)
