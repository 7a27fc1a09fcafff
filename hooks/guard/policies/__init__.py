"""One policy a file: `RULE` is its name in settings, `judge(world)` gives its findings."""
