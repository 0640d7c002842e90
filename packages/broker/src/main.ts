#!/usr/bin/env -S node -C @bagcheck/source
export {}
