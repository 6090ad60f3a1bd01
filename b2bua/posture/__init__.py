"""The posture report: what each safeguard was found to be, by probes made now. Nothing here changes anything."""
