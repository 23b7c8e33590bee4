"""Answers on demand through a broker: requests wait in a queue until a worker has time for them.

    queues.py   a broker by its URL: messages in, messages out, and those back that a dead worker had taken
    ledger.py   what became of every request; an answer is written once, whoever writes it
    worker.py   batches of requests asked of a model; tries, dead letters
    asking.py   the asker: sends, gathers, and asks again for what does not come

No transport alone gives one answer a request after any crash. SQLite's and the file system's forget who took a message,
and Redis loses one that is taken by a worker which dies before it has noted that. So a message may come twice, whoever
misses an answer asks again, and the ledger makes one answer of it.
"""
