"""The sections of a report, one file for each subject; each says why where there is nothing to show."""
