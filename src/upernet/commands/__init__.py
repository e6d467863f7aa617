"""The subcommands, one file each: words, screens, files and exit codes."""
