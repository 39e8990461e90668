// A program that imports WeightLoader has all that its interface is made of: types of tensors, statistics, errors.
@_exported public import BlockIO
@_exported public import ModelFormat
@_exported public import TensorBasics
