"""What runs in the processes of a foreign Flower app: its ServerApp in one, its ClientApp in others.

Nothing here imports the rest of the project by name, because in such a process its names are not taken: a module of
the app may be called ``server``, ``clients`` or ``fl``. The package is loaded by its place on disk, under a name of
its own (``__main__.py``), and its modules import one another relatively. The driver, clients/foreign.py, speaks to
these processes over sockets, in frames, and never unpickles what they say.

    frames    a header and buffers over a socket: all that both sides share
    process   how such a process begins: its parent's death, the app's folder in front, our packages out of sight
    records   Flower's records as buffers, arrays shared and never encoded twice
    client    the ClientApp's side: a message in, a reply and the client's new state out
    server    the ServerApp's side: loads the app and runs it on ``grid``
    grid      Flower's Grid, whose other end is the driver
    rounds    Strategy.start, with versions and resume
    legacy    the old server, with one order of results
    refused   what a refused reply is, and how large one may be
    means     Flower's weighted mean of arrays, without its copies
    guard     which replies may be aggregated
    state     what a strategy carries from round to round
"""
