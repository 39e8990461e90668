import WeightLoader

let loader = try TensorLoader.open(CommandLine.arguments[1], ram: 300 << 20)
print(loader.plan.streamByteCount, "bytes to stream through,", loader.plan.heldByteCount, "to keep")

try loader.stream { piece in
  let tensor = loader.tensors[piece.tensor]
  let sum = piece.withBytes { bytes in bytes.reduce(0) { $0 &+ UInt64($1) } }
  print(tensor.name, tensor.type.name, tensor.shape, piece.rows, piece.byteCount, sum)
}

// One row is one small read, however long its tensor is.
let row = try loader.loadValues([TensorPart(0, rows: 0..<1)])
print(loader.tensors[0].name, "begins with", row.withValues { values in values[0] })

if let bundle = try? loader.bundle(layer: 0, expert: 1) {
  try loader.prefetch(bundle)  // … and compute meanwhile
  let expert = try loader.load(bundle)
  for index in bundle.indices { print("expert 1:", expert.byteCount(index)) }
}

print(loader.statistics.bytesRead, "bytes read in", loader.statistics.requests, "reads")
