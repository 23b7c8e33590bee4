"""A model behind HTTP: what a server answers, how it batches, and how it follows an alias.

    model.py     a loaded version: numbers in, numbers out, and what may be asked of it
    batching.py  rows of several requests in one call of the model, within a bounded queue
    tensors.py   the Open Inference Protocol's tensors, as JSON and as bytes
    rows.py      rows by the names of their columns, and answers for people
    slots.py     the versions that are served under a name, and the one that answers now
    service.py   the web application; measures.py what it tells Prometheus, documents.py what its OpenAPI page says
    gateway.py   what happens to a request beside its answer; answered.py which answers feedback may come to
    router.py    which version answers while a release is open; counting.py what is counted of it
    mirrors.py   shadows, in processes of their own
    steering.py  follows a release; exchange.py what several servers tell each other of it
    server.py    uvicorn: impatient with those who send nothing, patient with what it accepted

Nothing here knows a format or a release policy: whoever starts a server hands it a function that loads a version by
name, and one that makes the policy of a release.
"""
