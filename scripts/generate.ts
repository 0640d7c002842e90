// Regenerates committed files that are derived from code; with --check it only compares.
export {}
