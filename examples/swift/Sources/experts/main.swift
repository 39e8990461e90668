// Serves experts of a model's layers, from an image or GGUF file larger than memory, to a matrix product of
// its own.
//
// usage: experts MODEL [RAM IN MiB] [TOKENS]
//
// Which experts a token needs is drawn at random here; a program with a router asks it instead. While the
// experts of one layer are computed with, those of the next are read.

import WeightLoader

/// Experts in memory, least recently used first.
struct ExpertCache {
  let loader: TensorLoader
  private var loaded: [[TensorPart]: LoadedTensors] = [:]
  private var order: [[TensorPart]] = []
  private(set) var hitCount = 0
  private(set) var useCount = 0

  init(_ loader: TensorLoader) { self.loader = loader }

  /// Begins to read an expert that will be needed; one that does not fit is read when it is.
  mutating func expect(_ bundle: [TensorPart], keeping needed: Set<[TensorPart]>) throws {
    guard loaded[bundle] == nil else { return }
    while true {
      do { return try loader.prefetch(bundle) } catch LoaderError.tensorsInUse {
        guard evict(except: needed) else { return }
      }
    }
  }

  /// The expert's matrices, from memory or the drive.
  mutating func use(
    _ bundle: [TensorPart], keeping needed: Set<[TensorPart]>
  ) throws -> LoadedTensors {
    useCount += 1
    order.removeAll { $0 == bundle }
    order.append(bundle)
    if let expert = loaded[bundle] {
      hitCount += 1
      return expert
    }
    while true {
      do {
        let expert = try loader.load(bundle)
        loaded[bundle] = expert
        return expert
      } catch {
        guard case .tensorsInUse = error, evict(except: needed) else { throw error }
      }
    }
  }

  /// Forgets the expert that was not used for longest; false where all are needed.
  private mutating func evict(except needed: Set<[TensorPart]>) -> Bool {
    guard let index = order.firstIndex(where: { loaded[$0] != nil && !needed.contains($0) }) else {
      return false
    }
    loaded[order.remove(at: index)] = nil
    return true
  }
}

let arguments = CommandLine.arguments
guard arguments.count > 1 else { fatalError("usage: experts MODEL [RAM IN MiB] [TOKENS]") }
let loader = try TensorLoader.open(
  arguments[1], ram: (arguments.count > 2 ? Int(arguments[2]) ?? 512 : 512) << 20)
let tokenCount = arguments.count > 3 ? Int(arguments[3]) ?? 8 : 8

let layers = (0..<1000).prefix { loader.index(of: "blk.\($0).ffn_down_exps.weight") != nil }
guard let first = layers.first else { fatalError("\(arguments[1]) has no experts") }
let down = try loader.tensor(named: "blk.\(first).ffn_down_exps.weight")
let width = down.shape[down.shape.count - 2]
var cache = ExpertCache(loader)
var generator = Generator(state: 1)
var state = [Float](repeating: 0.1, count: width)

/// Two experts that a token needs of a layer.
func route(
  _ layer: Int, of loader: TensorLoader, expertCount: Int, using generator: inout Generator
) throws -> [[TensorPart]] {
  try [generator.next(), generator.next()].map {
    try loader.bundle(layer: layer, expert: Int($0 % UInt64(expertCount)))
  }
}

for _ in 0..<tokenCount {
  var chosen = try route(first, of: loader, expertCount: down.partCount, using: &generator)
  for layer in layers {
    let next =
      layer + 1 < layers.count
      ? try route(layer + 1, of: loader, expertCount: down.partCount, using: &generator) : []
    let needed = Set(chosen + next)
    for bundle in chosen + next { try cache.expect(bundle, keeping: needed) }
    var sum = [Float](repeating: 0, count: width)
    for bundle in chosen {
      let expert = try cache.use(bundle, keeping: needed)
      let matrices = bundle.indices.map { Matrix(loader.tensors[bundle[$0].tensor], expert, $0) }
      let gate = matrices[0] * state
      let up = matrices[1] * state
      let output = matrices[2] * zip(gate, up).map { silu($0) * $1 }
      for index in sum.indices { sum[index] += output[index] }
    }
    for index in state.indices { state[index] = 0.5 * state[index] + 0.5 * sum[index] }
    chosen = next
  }
}

print("state", state.reduce(0, +))
print(
  "\(cache.hitCount) of \(cache.useCount) uses from memory,", loader.statistics.bytesRead,
  "bytes read")
