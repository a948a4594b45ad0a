"""An exported model over HTTP: TensorFlow Serving's REST interface, and a page for exploring the model.

A request goes through these files in turn: `protocol` (the connection), `app` (the address and the body), `desk` (a
place in the queue, and the deadline), `served` (the model). None of them imports tfvamp, Keras or TensorFlow
Probability: the process that serves needs only TensorFlow.
"""
