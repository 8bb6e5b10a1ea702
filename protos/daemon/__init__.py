"""What every daemon of the project does alike: settings, logs, the ready file, stopping, listening.

Standard library and click only, so that each program can use it.
"""
