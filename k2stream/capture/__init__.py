"""One data type captured by one worker: batches in, committed windows out.

edges.py     what capture asks of transport, decode, table, look-up, state and letters (Protocols)
intake.py    batches -> judged rows -> windows that close
closing.py   a closed window -> settled -> letters, files, commit, outbox, state
restore.py   the vector and the newest state -> a tracker and a filter that know what the table holds
capture.py   the life of it all: assignment, loops, restart, revoke
"""
