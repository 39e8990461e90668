import sys

import flashinfer_ssd

with flashinfer_ssd.open(sys.argv[1], ram="300MiB") as model:
    for tensor in model:
        print(tensor.name, tensor.type, tensor.shape)
    for piece in model.stream():
        print(piece.tensor.name, piece.first_row, piece.array.nbytes)
    # Single rows are small reads, however long their tensor is.
    table = max(model, key=lambda tensor: tensor.byte_count)
    rows = model.load_rows(table, [0, table.row_count - 1], dequantise=True)
    print(table.name, "begins with", rows[0, :4], "and ends with", rows[1, -4:])
    print(model.statistics.bytes_read, "bytes read")
