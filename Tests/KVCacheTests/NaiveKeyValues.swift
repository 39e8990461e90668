import BlockIO
import Glibc
import KVCache
import Kernels
import TensorBasics
import TestSupport
import Testing

/// What a store should hold: every key and value of every position, and their blocks as f16.
struct NaiveKeyValues {
  let shape: KeyValueShape
  private(set) var positionCount = 0
  /// Of each layer, head and page group: groups of sixteen positions, keys [headDim][16] then values
  /// [16][headDim], f16 [128 positions].
  private var blocks: [[[[Float16]]]]

  init(_ shape: KeyValueShape) {
    self.shape = shape
    let empty = [Float16](repeating: 0, count: 2 * 128 * shape.headDim)
    blocks = Array(
      repeating: Array(
        repeating: Array(repeating: empty, count: shape.pageGroupCount),
        count: shape.keyValueHeadCount),
      count: shape.layerCount)
  }

  /// Forgets the positions from `count` on.
  mutating func truncate(to count: Int) { positionCount = count }

  /// Adds positions and returns their keys and values: of each layer, position by position,
  /// [keyValueHeadCount, headDim].
  mutating func append(
    _ count: Int, using generator: inout SeededGenerator
  ) -> [[(keys: [Float], values: [Float])]] {
    let length = shape.headDim
    var pages: [[(keys: [Float], values: [Float])]] = []
    for layer in 0..<shape.layerCount {
      var page: [(keys: [Float], values: [Float])] = []
      for position in positionCount..<positionCount + count {
        let numbers = (0..<2 * shape.keyValueHeadCount * length).map { _ in
          Float(Float16(Float.random(in: -4...4, using: &generator)))
        }
        let keys = Array(numbers[..<(numbers.count / 2)])
        let values = Array(numbers[(numbers.count / 2)...])
        for head in 0..<shape.keyValueHeadCount {
          let (pageGroup, index) = position.quotientAndRemainder(dividingBy: 128)
          for element in 0..<length {
            let (key, value) = places(index, element)
            blocks[layer][head][pageGroup][key] = Float16(keys[head * length + element])
            blocks[layer][head][pageGroup][value] = Float16(values[head * length + element])
          }
        }
        page.append((keys, values))
      }
      pages.append(page)
    }
    positionCount += count
    return pages
  }

  private func places(_ index: Int, _ element: Int) -> (key: Int, value: Int) {
    let length = shape.headDim
    let (group, slot) = index.quotientAndRemainder(dividingBy: 16)
    let base = group * 32 * length
    return (base + element * 16 + slot, base + 16 * length + slot * length + element)
  }

  /// A layer's page of a page group as it is being filled.
  func openPage(layer: Int, pageGroup: Int) -> [Float16] {
    (0..<shape.keyValueHeadCount).flatMap { blocks[layer][$0][pageGroup] }
  }

  /// Whether a block is what queries of page group `own` should see of a page group.
  func matches(
    _ block: UnsafeRawPointer, layer: Int, head: Int, pageGroup: Int, own: Int
  ) -> Bool {
    let known = blocks[layer][head][pageGroup]
    let byteCount = 2 * known.count
    guard pageGroup == own || pageGroup == positionCount / 128 else {
      return known.withUnsafeBytes { bytes in
        guard let start = bytes.baseAddress else { return false }
        guard shape.quantises else { return memcmp(block, start, byteCount) == 0 }
        let stored = UnsafeMutableRawPointer.allocate(
          byteCount: shape.blockByteCount, alignment: 64)
        let expanded = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
        defer {
          stored.deallocate()
          expanded.deallocate()
        }
        KeyValueBlock.quantise(
          start, headDim: shape.headDim, to: shape.type, into: stored)
        KeyValueBlock.expand(
          stored, headDim: shape.headDim, from: shape.type, into: expanded)
        return memcmp(block, expanded, byteCount) == 0
      }
    }
    // After the last position there may be anything.
    let found = block.assumingMemoryBound(to: Float16.self)
    for index in 0..<min(128, positionCount - pageGroup * 128) {
      for element in 0..<shape.headDim {
        let (key, value) = places(index, element)
        guard found[key] == known[key], found[value] == known[value] else { return false }
      }
    }
    return true
  }
}

/// A store and what it should hold, taken through chunks as a decoder takes it.
final class CheckedStore {
  let store: KeyValueStore
  var known: NaiveKeyValues
  private let pool = ThreadPool(threadCount: 1)
  private let expansion: AlignedBuffer
  private let queryHeadCount: Int
  private let isSelective: Bool

  init(
    _ shape: KeyValueShape, _ plan: KeyValuePlan, _ options: KeyValueOptions,
    known: NaiveKeyValues? = nil
  ) throws {
    queryHeadCount = 2 * shape.keyValueHeadCount
    store = try KeyValuePool(plan, options, queryHeadCount: queryHeadCount).openSequence()
    self.known = known ?? NaiveKeyValues(shape)
    expansion = try AlignedBuffer(byteCount: max(1, KeyValueStore.expansionByteCount(shape)))
    isSelective = options.policy != .full
  }

  /// A sequence of a pool that others share, which holds `known`.
  init(_ store: KeyValueStore, isSelective: Bool, known: NaiveKeyValues? = nil) throws {
    self.store = store
    self.isSelective = isSelective
    queryHeadCount = 2 * store.shape.keyValueHeadCount
    self.known = known ?? NaiveKeyValues(store.shape)
    expansion = try AlignedBuffer(byteCount: max(1, KeyValueStore.expansionByteCount(store.shape)))
  }

  /// Adds a position and some after it that may be rejected, and rejects the last of them.
  func passTentatively(using generator: inout SeededGenerator) throws {
    let first = known.positionCount
    let room = min(store.tentativeRoom(after: first + 1), 40)
    let count = Int.random(in: 0...max(0, room), using: &generator)
    try Self.sweep(
      [(self, 1 + count, .answer)], tentativeCount: count, using: &generator)
    let end = Int.random(in: first + 1...first + 1 + count, using: &generator)
    if Bool.random(using: &generator) {
      store.reject(from: end)
      known.truncate(to: end)
    } else {
      // As what was cut is.
      try truncate(to: end, using: &generator)
    }
    #expect(store.positionCount == known.positionCount)
  }

  /// Adds `count` positions and looks at all that their queries see.
  func pass(
    _ count: Int, _ kind: RowKind, using generator: inout SeededGenerator
  ) throws {
    try Self.sweep([(self, count, kind)], using: &generator)
  }

  /// Adds positions to several sequences of a pool in one sweep, chunks first, as attention takes them.
  ///
  /// - Parameters:
  ///   - layerCount: layers after which the sweep is broken off.
  ///   - tentativeCount: positions of each that may be rejected.
  static func sweep(
    _ spans: [(sequence: CheckedStore, count: Int, kind: RowKind)],
    layerCount: Int = .max, tentativeCount: Int = 0, using generator: inout SeededGenerator
  ) throws {
    let spans = spans.filter { $0.count > 1 } + spans.filter { $0.count == 1 }
    guard let shape = spans.first?.sequence.known.shape else { return }
    spans[0].sequence.store.pool.beginSweep()
    var pages: [[[(keys: [Float], values: [Float])]]] = []
    for span in spans {
      let first = span.sequence.known.positionCount
      try span.sequence.store.begin(
        first..<first + span.count, span.kind, tentativeCount: tentativeCount)
      pages.append(span.sequence.known.append(span.count, using: &generator))
    }
    for layer in 0..<min(shape.layerCount, layerCount) {
      for span in spans { try span.sequence.store.prepare(layer: layer) }
      for (span, pages) in zip(spans, pages) {
        let positions =
          span.sequence.known.positionCount
          - span.count..<span.sequence.known
          .positionCount
        for (position, page) in zip(positions, pages[layer]) {
          span.sequence.store.store(
            layer: layer, position: position, keys: page.keys, values: page.values)
        }
      }
      for span in spans { span.sequence.store.seal(layer: layer, on: span.sequence.pool) }
      for span in spans where span.kind == .answer {
        let queries = (0..<span.sequence.queryHeadCount * shape.headDim).map { _ in
          Float.random(in: -1...1, using: &generator)
        }
        try span.sequence.store.planBlocks(layer: layer, queries: queries)
      }
      for span in spans {
        let end = span.sequence.known.positionCount
        try span.sequence.attend(
          layer: layer, end - span.count..<end,
          all: span.kind != .answer || !span.sequence.isSelective)
      }
      for span in spans { try span.sequence.store.finish(layer: layer) }
    }
  }

  /// Goes back, and adds the positions after the restore point again, as a caller would read their tokens.
  func truncate(to position: Int, using generator: inout SeededGenerator) throws {
    let point = try store.truncate(to: position)
    #expect(point <= position)
    known.truncate(to: point)
  }

  /// - Parameter all: whether every block that the queries see is attended over.
  private func attend(layer: Int, _ positions: Range<Int>, all: Bool) throws {
    let shape = known.shape
    func firstSeen(_ position: Int) -> Int {
      shape.windows[layer].map { max(0, position - $0 + 1) } ?? 0
    }
    let seen = firstSeen(positions.lowerBound)...positions.upperBound - 1
    for tile in seen.lowerBound / 512...seen.upperBound / 512 {
      guard store.isAttended(layer: layer, tile: tile, positions: seen) else {
        #expect(!all)
        continue
      }
      while !store.isReady(layer: layer, tile: tile, positions: seen) {
        try store.waitForRead(layer: layer, tile: tile)
      }
      for own in positions.lowerBound / 128...(positions.upperBound - 1) / 128 {
        let pageGroups = firstSeen(max(positions.lowerBound, own * 128)) / 128...own
        try check(layer: layer, tile: tile, pageGroups, all: all)
      }
      store.release(layer: layer, tile: tile)
      try store.readAhead()
    }
  }

  private func check(
    layer: Int, tile: Int, _ pageGroups: ClosedRange<Int>, all: Bool
  ) throws {
    var found = [UnsafeRawPointer?](repeating: nil, count: AttentionTile.groupCount)
    for head in 0..<known.shape.keyValueHeadCount {
      store.expandedGroups(
        layer: layer, head: head, tile: tile, pageGroups: pageGroups, expansion: expansion.address,
        into: &found)
      for index in 0..<AttentionTile.blockCount {
        let pageGroup = tile * AttentionTile.blockCount + index
        let groups = found[
          index * KeyValueBlock.groupCount..<(index + 1) * KeyValueBlock.groupCount]
        let block = groups[groups.startIndex]
        let byteCount = KeyValueGroup.byteCount(headDim: known.shape.headDim)
        #expect(
          groups.enumerated().allSatisfy {
            $1 == block.map { [index = $0] in $0 + index * byteCount }
          })
        guard pageGroups.contains(pageGroup) else { continue }
        guard let block else {
          #expect(
            !all && pageGroup != pageGroups.upperBound, "layer \(layer), page group \(pageGroup)")
          continue
        }
        #expect(
          known.matches(
            block, layer: layer, head: head, pageGroup: pageGroup, own: pageGroups.upperBound),
          "layer \(layer), head \(head), page group \(pageGroup) of \(pageGroups)")
      }
    }
  }

  func reset() {
    store.reset()
    known.truncate(to: 0)
  }
}
