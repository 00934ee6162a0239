"""Administration over HTTP, a file per noun: tenants, their teams and keys, and the log of every change."""
