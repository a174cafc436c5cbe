"""`k2 demo`: real ticks through the whole path, and a balance sheet that can fail.

stage.py    the home, the recording, the worker; publishes and waits until the table has it all
truth.py    what must be there, computed without the pipeline: from the recordings' own files and the oracle of gaps
found.py    what is there: the tables, the ledger, the letters
sheet.py    the two side by side, three questions with their answers, where to look next
"""

from k2stream.demo.stage import run

__all__ = ["run"]
