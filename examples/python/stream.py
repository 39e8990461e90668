import sys

import flashinfer

with flashinfer.open(sys.argv[1], ram="200MiB") as model:
    for tensor in model:
        print(tensor.name, tensor.type, tensor.shape)
    for piece in model.stream():
        print(piece.tensor.name, piece.first_row, piece.array.nbytes)
    name = model.tensors[0].name
    print(name, "on average", model.load(name, dequantise=True).mean())
    print(model.statistics.bytes_read, "bytes read")
