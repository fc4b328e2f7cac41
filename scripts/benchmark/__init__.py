"""The benchmark: flux beside floors and other tools, in one run. `scripts/bench --help` tells more.

From `changes` (what is migrated) and `environments` (where each tool is installed) come `tools` and
`peers`: how each one's project looks, and its commands. `processes` runs commands, `measure`
compares them, `workshop` has databases for them, the rooms whose names begin with `works` say what
is measured, and `report` puts it into JSON and Markdown. The floors and what runs inside a program
are in `programs/`, whose files run on their own.
"""
