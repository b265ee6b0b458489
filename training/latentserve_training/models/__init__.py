"""The models, one file per kind; :mod:`.registry` maps a kind's name to its class."""
