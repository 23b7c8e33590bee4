"""The inference log: every request one record, written beside the answering and read by whoever watches a model.

    LOG/
      salt                    the key of the hashes of users: the same user, the same hash, in this folder only
      SERVER.count            three numbers: records taken, refused because the queue was full, removed as too old
      SERVER-000001.jsonl     what a server writes now: a line holds all records that came together
      SERVER-000001.parquet   the same once it was large or old enough

All records that come together become one line where they are taken; a thread writes them every ``flush_seconds``.
Each has a number, and how many were taken stands in memory that outlives the process: after a kill the next server of
the folder turns what was written into Parquet and knows how many records never were: at most one flush interval's.

    records.py   what is taken down of a request, and the line of several
    counts.py    numbers of a server that outlive it
    files.py     lines and Parquet: reading, making one of the other, what was kept and what was lost
    writer.py    what becomes of records, and the thread that writes
"""
