"""`ntml-status`, its command line and what it prints."""
