"""A reader for the command lines of bash and zsh: text to tree (`reader`), words to fields (`expand`)."""
