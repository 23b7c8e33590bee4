"""Models: one ``build`` function a file, and what is done with any model, whoever built it.

softmax mlp cnn             numbers and images          build.py     a model by its dotted name, checked
logistic table_mlp          tables                      arrays.py    modules and tensors <-> NumPy
lstm transformer            next token                  tasks.py     loss and statistics of a task
                                                        evaluate.py  a model asked about many examples
"""
