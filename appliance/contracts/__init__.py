"""What services promise each other: Protocols and frozen values, one folder per area and version."""
