"""Run the whole loop on one machine: what ``wm demo`` starts, shows and reports."""
