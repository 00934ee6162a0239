"""The processes that run jobs, deliver webhooks and repair. They serve no HTTP."""
