import KVCache
import Kernels
import TensorBasics
import Testing

/// Attention over keys and values that lie in memory of its own, and that checks what it is given.
///
/// It may be told to fail.
final class MemoryAttention: DecodeAttention {
  struct Failed: Error {}

  let hostWindow: Int
  /// Calls after which it fails.
  var callsLeft = Int.max
  private(set) var foldCount = 0
  /// Of each layer, where what was handed over ends, and where it begins.
  private(set) var ends: [Int]
  private var starts: [Int]
  private let shape: KeyValueShape
  private let groupSize: Int
  /// Blocks [layerCount, keyValueHeadCount, pageGroupCount].
  private let memory: AlignedBuffer
  private let scratch: AlignedBuffer

  init(_ shape: KeyValueShape, queryHeadCount: Int, hostWindow: Int) throws {
    self.shape = shape
    self.hostWindow = hostWindow
    groupSize = queryHeadCount / shape.keyValueHeadCount
    ends = Array(repeating: 0, count: shape.layerCount)
    starts = ends
    memory = try AlignedBuffer(
      byteCount: shape.pageCount * shape.keyValueHeadCount * shape.openBlockByteCount)
    scratch = try AlignedBuffer(
      byteCount: AttentionKernel.scratchByteCount(queryCount: groupSize, headDim: shape.headDim))
  }

  func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>
  ) throws {
    try count()
    if position != ends[layer] {
      #expect(shape.windows[layer] != nil && position > ends[layer] && position % 128 == 0)
      starts[layer] = position
    }
    for index in 0..<tokenCount {
      for head in 0..<shape.keyValueHeadCount {
        let row = (index * shape.keyValueHeadCount + head) * shape.headDim
        let (pageGroup, place) = (position + index).quotientAndRemainder(dividingBy: 128)
        KeyValueBlock.store(
          key: keys + row, value: values + row, headDim: shape.headDim, position: place,
          into: block(layer, head, pageGroup))
      }
    }
    ends[layer] = position + tokenCount
  }

  func fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, into partials: TokenPartials,
    continues: Bool
  ) throws {
    try count()
    foldCount += 1
    let (first, last) = (Int(visible.first), Int(visible.last))
    #expect(first >= starts[layer] && first <= last && last == ends[layer] - 1)
    #expect(hostWindow == 0 || ends[layer] % 512 == 0, "complete tiles")
    for head in 0..<shape.keyValueHeadCount {
      let running = partials[head]
      if !continues { running.reset() }
      for tile in first / 512...last / 512 { merge(layer, head, tile, visible, queries, running) }
    }
  }

  func reset() {
    for layer in ends.indices { (starts[layer], ends[layer]) = (0, 0) }
  }

  private func merge(
    _ layer: Int, _ head: Int, _ tile: Int, _ visible: VisibleRange,
    _ queries: UnsafePointer<Float>, _ running: AttentionPartials
  ) {
    let groups = (32 * tile..<32 * tile + 32).map { group in
      group / 8 < shape.pageGroupCount
        ? UnsafeRawPointer(block(layer, head, group / 8))
          + group % 8 * KeyValueGroup.byteCount(headDim: shape.headDim) : nil
    }
    AttentionKernel.accumulate(
      groups: groups, tileFirstPosition: 512 * tile, headDim: shape.headDim,
      queries: queries + head * groupSize * shape.headDim, queryStride: shape.headDim,
      visible: Array(repeating: visible, count: groupSize), queryCount: groupSize, into: running,
      scratch: scratch.address)
  }

  private func block(_ layer: Int, _ head: Int, _ pageGroup: Int) -> UnsafeMutableRawPointer {
    memory.address
      + ((layer * shape.keyValueHeadCount + head) * shape.pageGroupCount + pageGroup)
      * shape.openBlockByteCount
  }

  private func count() throws {
    guard callsLeft > 0 else { throw Failed() }
    callsLeft -= 1
  }
}
