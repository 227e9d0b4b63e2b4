"""The options of the jobs, from which flags, defaults, help texts and checks are made."""
