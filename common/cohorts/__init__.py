"""Data sets: the cohorts by name, and their cases as datalist items."""

from common.cohorts.cohort import Cohort
from common.cohorts.missing import counts_of, mask_cases, require_complete
from common.cohorts.parts import cases, prepare, take
from common.cohorts.phantom.cohort import generate as generate_phantom
from common.cohorts.registry import COHORTS, get_cohort
