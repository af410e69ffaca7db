"""What some operators need to know of a model beside its weights, found by running it on examples.

`evomerge.measure.fisher.fisher` and `evomerge.measure.activations.activations` take any torch module and an iterable
of batches, and return arrays by tensor name; `evomerge.measure.files.save` writes them as a safetensors file that
``pool.statistics`` can name. A batch is

* a mapping: the model's keyword arguments; ``labels``, if it has them, are targets and not passed on;
* a pair: the model's argument, and targets;
* a tensor: the model's argument.

The first axis of every tensor counts the examples. A model returns logits, or an object that has ``logits``.
"""
