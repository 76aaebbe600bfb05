"""Directories and experiments that somebody else has damaged or made to do harm, through each of the five commands.

    python scripts/faults.py --hostile 200

stage.py makes real runs once and copies them for every case; directories.py, characters.py, states.py, settings.py, ratings.py and files.py
hold the attacks; child.py is the process of a command; watch.py says what a command must not do; play.py forks, kills, counts and prints.
"""

import os

# before any module imports numpy, which starts threads when it is imported
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
