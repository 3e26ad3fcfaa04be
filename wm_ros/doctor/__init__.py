"""Examines a robot before it runs, and says what to mend."""
