"""Jobs made visible: a self-contained page per job, from the job's own files alone."""
