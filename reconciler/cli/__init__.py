"""The command line: words to calls, and answers to words a terminal or a program can read.

No verb decides anything about rules or devices. `validate` asks `core`; `get` and `trigger` speak
HTTP to a controller; `demo`, `up`, `controller` and `plan` hand settings to `main`. Exit codes are
0 for clean, 1 for findings, 2 for an error.
"""
