"""What the front door and the workers both stand on; the floors are listed in ARCHITECTURE.md."""
