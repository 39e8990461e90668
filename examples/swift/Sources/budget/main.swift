import Glibc
import Runtime
import WeightLoader

// Uses of a file that is larger than the budget: prints the process's peak, the budget, and how many were refused.
// usage: budget FILE MODEL BUDGET KIND:TENSOR:COUNT…

let (path, model) = (CommandLine.arguments[1], CommandLine.arguments[2])
let budget = Int(CommandLine.arguments[3]) ?? 0
let callerByteCount = 8 << 20
var loader: TensorLoader?
var refusedCount = 0

for argument in CommandLine.arguments.dropFirst(4) {
  let parts = argument.split(separator: ":")
  let (number, count) = (Int(parts[1]) ?? 0, Int(parts[2]) ?? 0)
  if parts[0] == "generate" {
    try loader?.close()
    loader = nil
    try generate(count)
    continue
  }
  let opened = try loader ?? open()
  loader = opened
  do { try use(opened, parts[0], number, count) } catch LoaderError.tensorsInUse {
    refusedCount += 1
  }
}
print(peakByteCount(), budget, refusedCount)

func open() throws -> TensorLoader {
  var options = LoaderOptions()
  options.callerByteCount = callerByteCount
  options.pieceByteCount = 2 << 20
  options.streamByteCount = 12 << 20
  return try TensorLoader.open(path, ram: budget, options: options)
}

/// Does one thing with the file.
func use(_ loader: TensorLoader, _ kind: Substring, _ number: Int, _ count: Int) throws {
  let tensor = loader.tensors[number]
  let rows = (0..<count).map { index in
    let row = (index * 7919 + number) % tensor.partRowCount
    return TensorPart(number, rows: row..<row + 1)
  }
  switch kind {
  case "load": touch(try loader.load([TensorPart(number)]))
  case "floats": _ = try loader.loadValues([TensorPart(number)])
  case "pieces": try loader.stream([TensorPart(number)]) { _ = sum($0) }
  case "pieceFloats":
    try loader.begin([TensorPart(number)])
    while let piece = try loader.next() {
      let values = try loader.allocate(byteCount: piece.rows.count * tensor.columnCount * 4)
      values.withBytes { $0.withUnsafeMutableBytes { $0[0] = sum(piece) } }
    }
  case "rows": touch(try loader.load(rows))
  case "rowFloats": _ = try loader.loadValues(rows)
  case "into":
    let list = [TensorPart(number, rows: 0..<count)]
    let byteCount = try loader.loadByteCount(list)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
    defer { memory.deallocate() }
    var span = memory.mutableBytes
    _ = try loader.load(list, into: &span)
  case "prefetch":
    try loader.prefetch([TensorPart(number)])
    touch(try loader.load([TensorPart(number)]))
  case "abandon":
    try loader.prefetch([TensorPart(number)])
    try loader.cancelPrefetch([TensorPart(number)])
  case "hold":
    let kept = try loader.tensors.indices.map { try loader.load([TensorPart($0)]) }
    fatalError("\(kept.count) tensors together are larger than the budget")
  default: fatalError("there is no use '\(kind)'")
  }
}

func touch(_ loaded: LoadedTensors) { loaded.withBytes(0) { bytes in _ = bytes.reduce(0, &+) } }

func sum(_ piece: borrowing TensorPiece) -> UInt8 { piece.withBytes { $0.reduce(0, &+) } }

func generate(_ count: Int) throws {
  let text = try LanguageModel.open(model)
  let session = try Session(
    text.source, text.configuration,
    MemoryPlan.Request(budgetByteCount: budget, contextLength: 64, promptLength: 1, threadCount: 2))
  let generator = TextGenerator(session: session, tokenizer: text.tokenizer)
  _ = try generator.generate(
    GenerationOptions(prompt: [5], maximumTokenCount: count)
  ) { _ in }
}

/// The largest resident set so far (VmHWM). What getrusage says would include the program that started this one.
func peakByteCount() -> Int {
  guard let file = fopen("/proc/self/status", "r") else { return 0 }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  while fgets(&line, Int32(line.count), file) != nil {
    let words = String(
      decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self
    ).split(
      whereSeparator: \.isWhitespace)
    if words.first == "VmHWM:", words.count > 1 { return (Int(words[1]) ?? 0) << 10 }
  }
  return 0
}
