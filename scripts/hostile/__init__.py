"""Directories and experiments that somebody else has damaged or made to do harm, through each of the five commands.

    python scripts/faults.py --hostile 200

stage.py makes real runs once and copies them for every case; directories.py, states.py, settings.py and files.py hold the attacks;
watch.py says what a command must not do; play.py forks a process for each command, plays the cases and prints the tables.
"""
