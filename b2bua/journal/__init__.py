"""Lines sealed in containers: the audit log, whose lines are chained, and the log file, whose lines are not."""
