"""The model hub: what ``models.toml`` declares, immutable snapshots in the home, and how they are made."""
