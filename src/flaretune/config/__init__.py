"""Every option, defined once: flags, template keys, recipe arguments and `docs/reference/options.md` come from here."""
