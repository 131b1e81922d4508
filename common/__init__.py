"""What several shipped folders need, written once.

Runs in every container and function: an upload carries the modules that it imports (configuration/code.py), and on the
author's machine. Only the standard library at import.
"""
