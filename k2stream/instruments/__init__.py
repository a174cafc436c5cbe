"""Reference data: the newest record of each company is its instrument, a record without a value ends it.

changes.py   a batch or a window of records -> changes, rejects, counts; pure
merge.py     what a table holds + changes -> what it holds then; pure
plain.py     values of any column as JSON
lookup.py    the table's rows by exchange and symbol, and who asked for one that is not there
"""
