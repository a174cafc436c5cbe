"""One data type captured by one worker: batches in, committed windows out.

edges.py     what capture asks of transport, decode, table, look-up, state and letters (Protocols)
closing.py   a closed window -> settled -> letters, files, commit, outbox, state
restore.py   the vector and the newest state -> a tracker and a filter that know what the table holds
start.py     where a partition is read from for the first time, and whether the log still holds it
capture.py   the life of it all: assignment, loops, restart, revoke
progress.py  what was done since the worker started, for pages and metrics; stages.py the CPU time of each stage
"""
