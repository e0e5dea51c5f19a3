"""All cases of small networks, by name."""

import cases_channels
import cases_ends
import cases_more_reports
import cases_moves
import cases_reports
import cases_weights
from cases_base import CASES, Case

__all__ = ["CASES", "FILES", "Case"]

FILES = (cases_reports, cases_more_reports, cases_moves, cases_weights, cases_channels, cases_ends)
