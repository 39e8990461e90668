import Glibc
import InStorageAttention
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// Flash small enough that tiny models fill blocks, collect garbage and wear it out.
func smallFlash(
  channels: Int = 2, blocks: Int = 64, pages: Int = 4, pageByteCount: Int = 1024
) -> FlashGeometry {
  FlashGeometry(
    channelCount: channels, planesPerChannel: 1, blocksPerPlane: blocks, pagesPerBlock: pages,
    pageByteCount: pageByteCount)
}

/// Attention of random heads, and what it gives on the host.
struct RandomAttention {
  let shape: DriveArray.Shape
  private(set) var keys: [[Float]] = []
  private(set) var values: [[Float]] = []
  private var generator: SeededGenerator

  init(
    layerCount: Int = 1, queryHeadCount: Int = 4, keyValueHeadCount: Int = 2, headDim: Int = 32,
    contextLength: Int = 700, windows: [Int?]? = nil, seed: UInt64
  ) {
    shape = DriveArray.Shape(
      layerCount: layerCount, queryHeadCount: queryHeadCount,
      keyValueHeadCount: keyValueHeadCount, headDim: headDim, contextLength: contextLength,
      windows: windows ?? Array(repeating: nil, count: layerCount))
    generator = SeededGenerator(seed: seed)
    keys = Array(repeating: [], count: layerCount)
    values = keys
  }

  mutating func random(_ count: Int) -> [Float] {
    (0..<count).map { _ in Float(4 * (generator.nextUnit() - 0.5)) }
  }

  var width: Int { shape.keyValueHeadCount * shape.headDim }
  func positionCount(_ layer: Int) -> Int { keys[layer].count / width }

  /// Appends random keys and values to a layer, here and in `array`.
  mutating func append(_ count: Int, layer: Int, to array: DriveArray) throws {
    let position = positionCount(layer)
    let (newKeys, newValues) = (random(count * width), random(count * width))
    keys[layer] += newKeys
    values[layer] += newValues
    try array.append(
      layer: layer, position: position, tokenCount: count, keys: newKeys, values: newValues)
  }

  mutating func forget() {
    for layer in keys.indices {
      keys[layer] = []
      values[layer] = []
    }
  }

  /// Random queries, as large as make scores differ.
  mutating func queries() -> [Float] {
    random(shape.queryHeadCount * shape.headDim)
  }

  /// Attention in double precision over keys and values rounded to f16.
  func expected(_ queries: [Float], layer: Int, first: Int, last: Int) -> [Float] {
    let length = shape.headDim
    let group = shape.queryHeadCount / shape.keyValueHeadCount
    var output = [Float](repeating: 0, count: queries.count)
    for head in 0..<shape.queryHeadCount {
      func row(_ rows: [Float], _ position: Int) -> [Double] {
        let from = position * width + head / group * length
        return rows[from..<from + length].map { Double(Float16($0)) }
      }
      let query = queries[head * length..<(head + 1) * length].map(Double.init)
      let scores = (first...last).map { position in
        zip(query, row(keys[layer], position)).reduce(0) { $0 + $1.0 * $1.1 }
      }
      let highest = scores.max() ?? 0
      let weights = scores.map { exponential($0 - highest) }
      let sum = weights.reduce(0, +)
      for (index, position) in (first...last).enumerated() {
        for (element, value) in row(values[layer], position).enumerated() {
          output[head * length + element] += Float(weights[index] / sum * value)
        }
      }
    }
    return output
  }

  private func exponential(_ x: Double) -> Double {
    // Halved until the series is exact to double precision.
    var (term, sum) = (1.0, 1.0)
    let y = x / 1024
    for n in 1..<12 {
      term *= y / Double(n)
      sum += term
    }
    for _ in 0..<10 { sum *= sum }
    return sum
  }
}

extension DriveArray {
  /// Attention's output.
  func attend(_ queries: [Float], layer: Int, first: Int, last: Int) throws -> [Float] {
    let partials = HeldPartials(shape)
    try fold(queries, layer: layer, first: first, last: last, into: partials, continues: false)
    return partials.output
  }

  /// Merges tiles into partials.
  func fold(
    _ queries: [Float], layer: Int, first: Int, last: Int, into partials: HeldPartials,
    continues: Bool
  ) throws {
    try fold(
      layer: layer, visible: VisibleRange(first: Int32(first), last: Int32(last)),
      queries: queries, into: partials.partials, continues: continues)
  }

  /// Drives for a model's heads.
  static func make(
    _ shape: Shape, count: Int = 1, engine: AttentionEngineKind = .dense,
    flash: FlashGeometry = smallFlash(blocks: 2000), faults: FlashFaults = FlashFaults()
  ) throws -> DriveArray {
    try DriveArray(
      shape, driveCount: count, DriveConfiguration(flash: flash, engine: engine, faults: faults))
  }
}

/// Partials of a token, and their memory.
final class HeldPartials {
  private let shape: DriveArray.Shape
  private let memory: UnsafeMutableRawPointer
  private let byteCount: Int

  /// - Note: what is there at first is no number, as nothing may depend on it.
  init(_ shape: DriveArray.Shape) {
    self.shape = shape
    byteCount = AttentionPartials.byteCount(
      queryCount: shape.queryHeadCount, headDim: shape.headDim)
    memory = .allocate(byteCount: byteCount, alignment: 64)
    memory.initializeMemory(as: Float.self, repeating: .nan, count: byteCount / 4)
  }

  deinit { memory.deallocate() }

  var partials: TokenPartials {
    TokenPartials(
      memory: memory, groupSize: shape.queryHeadCount / shape.keyValueHeadCount,
      headDim: shape.headDim)
  }

  /// Attention's output [queryHeadCount, headDim].
  var output: [Float] {
    let width = partials.groupSize * shape.headDim
    var result = [Float](repeating: 0, count: shape.keyValueHeadCount * width)
    result.withUnsafeMutableBufferPointer {
      for head in 0..<shape.keyValueHeadCount {
        AttentionKernel.finish(
          partials[head], into: $0.baseAddress! + head * width, outputStride: shape.headDim)
      }
    }
    return result
  }

  var bits: [UInt32] {
    UnsafeRawBufferPointer(start: memory, count: byteCount).bindMemory(to: UInt32.self).map { $0 }
  }
}

func largestDifference(_ a: [Float], _ b: [Float]) -> Float {
  zip(a, b).map { abs($0 - $1) }.max() ?? 0
}

/// A session of a tiny model whose keys and values stay in memory.
func openSession(
  _ path: String, contextLength: Int, promptLength: Int, chunkLength: Int = 512,
  decodeAttention: (any DecodeAttention)? = nil
) throws -> Session {
  let source = try ModelSource.open(path)
  guard let configuration = source.description.configuration else {
    preconditionFailure("a test model has a configuration")
  }
  var request = MemoryPlan.Request(
    budgetByteCount: 4 << 30, contextLength: contextLength, promptLength: promptLength,
    threadCount: 1, maximumChunkLength: chunkLength)
  request.assumedProcessByteCount = 0
  return try Session(source, configuration, request, decodeAttention: decodeAttention)
}

extension DriveArray.Shape {
  init(_ configuration: DecoderConfiguration, contextLength: Int, hostWindow: Int = 0) {
    self.init(
      layerCount: configuration.layerCount, queryHeadCount: configuration.queryHeadCount,
      keyValueHeadCount: configuration.keyValueHeadCount, headDim: configuration.headDim,
      contextLength: contextLength,
      windows: configuration.windows, hostWindow: hostWindow)
  }
}

/// A model by its heads, whose layers slide where it has a window.
struct HeadCase: Sendable, CustomTestStringConvertible {
  var name: String
  var headDim: Int
  var queryHeadCount: Int
  var keyValueHeadCount: Int
  var window = 0
  var testDescription: String {
    "\(name), \(queryHeadCount)/\(keyValueHeadCount) heads of \(headDim), window \(window)"
  }

  func model(contextLength: Int) -> TinyModel {
    var model = TinyModel(architecture: name)
    model.headDim = headDim
    model.queryHeadCount = queryHeadCount
    model.keyValueHeadCount = keyValueHeadCount
    model.contextLength = contextLength
    if window > 0 { model.slidingWindow = window }
    return model
  }
}

/// Bits of the logits after a prompt and after each token decoded from there.
func logitBits(
  _ session: Session, _ prompt: [Int32], _ decoding: [Int32]
) throws -> [[UInt32]] {
  var rows = [Array(try session.prefill(prompt)).map(\.bitPattern)]
  for token in decoding { rows.append(Array(try session.decode(token)).map(\.bitPattern)) }
  return rows
}
