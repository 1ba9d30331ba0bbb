"""Reports a person reads: the terminal table, plots, and the page that is sent to a reviewer."""
