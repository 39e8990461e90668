import Kernels
import TensorBasics

/// What runs inside a drive, on its thread: commands on keys and values, over flash and memory of its own.
///
/// Every position of a stream passes through its group buffer. A complete token group becomes pages; a
/// complete tile becomes channel-indexed pages as well, where the engine is sparse. Pages go to open blocks
/// (``FlashTranslation``), striped over the channels.
final class DriveController {
  let contents: DriveContents
  let layout: PageLayout
  let engine: AttentionEngineKind
  let geometry: FlashGeometry
  let buffers: EngineBuffers
  var translation: FlashTranslation
  var operations = EngineOperations()
  private let memory: AlignedBuffer
  /// Memory in use of that the drive has.
  let memoryByteCount: Int
  /// The first stream of each layer.
  private let firstStreams: [Int]
  /// Where the positions appended to each layer end, and token groups from its start that were reclaimed.
  private(set) var positionCounts: [Int]
  private var reclaimedCounts: [Int]
  /// The position of each layer before which some were never appended.
  private var skippedEnds: [Int]

  /// - Throws: ``DriveError/impossible(_:)``, ``DriveError/memoryTooSmall(needed:available:)`` before
  ///   anything is allocated; then as the system refuses memory or the file.
  init(_ configuration: DriveConfiguration, _ contents: DriveContents) throws(DriveError) {
    try configuration.check(contents)
    self.contents = contents
    engine = configuration.engine
    geometry = configuration.flash
    let layout = PageLayout(
      contents, pageByteCount: geometry.pageByteCount, hasChannelPages: engine.isSparse)
    guard layout.logicalPageCount < Int(Int32.max) else {
      throw .impossible("keys and values of more than \(Int32.max) pages cannot be addressed")
    }
    self.layout = layout
    memoryByteCount = Self.memoryByteCount(configuration, contents)
    guard memoryByteCount <= configuration.memoryByteCount else {
      throw .memoryTooSmall(
        needed: ByteCount(memoryByteCount), available: ByteCount(configuration.memoryByteCount))
    }
    do { memory = try AlignedBuffer(byteCount: memoryByteCount) } catch { throw .allocation(error) }
    var arena = Arena(memory.address)
    let tables = FlashTranslation.Tables(
      geometry, logicalPageCount: layout.logicalPageCount, &arena)
    buffers = EngineBuffers(contents, layout, &arena)
    let flash = try FlashArray(geometry, configuration.faults, configuration.file)
    translation = FlashTranslation(flash, tables, eraseLimit: configuration.eraseLimit)
    var (firsts, next) = ([Int](), 0)
    for heads in contents.heads {
      firsts.append(next)
      next += heads.count
    }
    firstStreams = firsts
    positionCounts = Array(repeating: 0, count: contents.layerCount)
    reclaimedCounts = Array(repeating: 0, count: contents.layerCount)
    skippedEnds = reclaimedCounts
  }

  /// Memory that a drive of this configuration takes for these contents.
  static func memoryByteCount(
    _ configuration: DriveConfiguration, _ contents: DriveContents
  ) -> Int {
    let layout = PageLayout(
      contents, pageByteCount: configuration.flash.pageByteCount,
      hasChannelPages: configuration.engine.isSparse)
    var arena = Arena.measuring
    _ = FlashTranslation.Tables(
      configuration.flash, logicalPageCount: layout.logicalPageCount, &arena)
    _ = EngineBuffers(contents, layout, &arena)
    return AlignedBuffer.roundedUp(arena.byteCount)
  }

  // MARK: Commands

  /// Takes keys and values of `tokenCount` positions from `position` on.
  ///
  /// - Parameter payload: [tokenCount][heads of the layer here] × (key [headDim], value [headDim]),
  ///   f16.
  func append(
    layer: Int, position: Int, tokenCount: Int, payload: UnsafePointer<UInt16>
  ) throws(DriveError) {
    guard position == positionCounts[layer], position + tokenCount <= contents.contextLength else {
      throw .outOfOrder(layer: layer, position: position, expected: positionCounts[layer])
    }
    let headCount = contents.heads[layer].count
    let length = layout.headDim
    for token in 0..<tokenCount {
      for head in 0..<headCount {
        let key = payload + (token * headCount + head) * 2 * length
        try append(
          layer: layer, stream: firstStreams[layer] + head, position: position + token, key: key,
          value: key + length)
      }
    }
    positionCounts[layer] += tokenCount
  }

  /// Computes attention of a layer's heads here.
  ///
  /// - Parameters:
  ///   - queries: [queryHeadCount, headDim] of all heads, in the host's memory.
  ///   - partials: of all heads, in the host's memory; written for the heads held here.
  ///   - continues: whether they hold the tiles before.
  func fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, partials: TokenPartials,
    continues: Bool
  ) throws(DriveError) {
    let positions = Int(visible.first)...max(Int(visible.first), Int(visible.last))
    guard visible.first >= 0, visible.last >= visible.first,
      positions.upperBound < positionCounts[layer], positions.lowerBound >= skippedEnds[layer],
      positions.lowerBound / layout.groupPositions >= reclaimedCounts[layer]
    else { throw .notHeld(layer: layer, positions: positions) }
    let width = contents.groupSize * layout.headDim
    for (index, head) in contents.heads[layer].enumerated() {
      buffers.queries.update(from: queries + head * width, count: width)
      let stream = firstStreams[layer] + index
      switch engine {
      case .dense:
        buffers.partials.reset()
        if continues { buffers.partials.update(from: partials[head]) }
        try attendDensely(layer: layer, stream: stream, visible)
      case .sparse(let options):
        guard !continues else { throw .impossible("SparF continues no attention") }
        try attendSparsely(layer: layer, stream: stream, visible, options)
      }
      partials[head].update(from: buffers.partials)
    }
  }

  /// Gives up the token groups and tiles of a layer that lie wholly before `position`.
  ///
  /// - Parameter position: may lie after all that were appended, which then go on there.
  func reclaim(layer: Int, before position: Int) {
    if position > positionCounts[layer] {
      positionCounts[layer] = min(position, contents.contextLength)
      skippedEnds[layer] = positionCounts[layer]
    }
    let end = min(position, positionCounts[layer]) / layout.groupPositions
    let first = reclaimedCounts[layer]
    guard end > first else { return }
    let tiles = layout.groupPositions * first / PageLayout.tilePositionCount
    let endTile = layout.groupPositions * end / PageLayout.tilePositionCount
    for stream in firstStreams[layer]..<firstStreams[layer] + contents.heads[layer].count {
      for group in first..<end {
        for page in 0..<2 * layout.pagesPerGroup {
          translation.reclaim(layout.keyPage(stream: stream, group: group) + page)
        }
      }
      guard layout.hasChannelPages else { continue }
      for tile in tiles..<endTile {
        for page in 0..<layout.pagesPerTile {
          translation.reclaim(layout.channelPage(stream: stream, tile: tile, page: page))
        }
      }
    }
    reclaimedCounts[layer] = end
  }

  /// Gives up everything; wear remains.
  func reclaimAll() {
    for layer in 0..<contents.layerCount {
      reclaim(layer: layer, before: positionCounts[layer])
      positionCounts[layer] = 0
      reclaimedCounts[layer] = 0
      skippedEnds[layer] = 0
    }
  }

  // MARK: Storing

  private func append(
    layer: Int, stream: Int, position: Int, key: UnsafePointer<UInt16>,
    value: UnsafePointer<UInt16>
  ) throws(DriveError) {
    let length = layout.headDim
    let index = position % layout.groupPositions
    let half = index / KeyValueGroup.positionCount * KeyValueGroup.positionCount * length
    let slot = index % KeyValueGroup.positionCount
    let keys = buffers.groupKeys(stream) + half + slot
    for element in 0..<length { keys[element * KeyValueGroup.positionCount] = key[element] }
    (buffers.groupValues(stream) + half + slot * length).update(from: value, count: length)
    if layout.hasChannelPages {
      let column = buffers.channelKeys(stream) + position % PageLayout.tilePositionCount
      for element in 0..<length { column[element * PageLayout.tilePositionCount] = key[element] }
      addToMean(stream: stream, position: position, value: value)
    }
    if index + 1 == layout.groupPositions {
      try writeGroup(stream: stream, group: position / layout.groupPositions)
    }
    if layout.hasChannelPages, (position + 1) % PageLayout.tilePositionCount == 0 {
      try writeTile(stream: stream, tile: position / PageLayout.tilePositionCount)
    }
  }

  private func writeGroup(stream: Int, group: Int) throws(DriveError) {
    let page = layout.keyPage(stream: stream, group: group)
    try write(buffers.groupKeys(stream), layout.groupByteCount, from: page, stripe: group + stream)
    try write(
      buffers.groupValues(stream), layout.groupByteCount, from: page + layout.pagesPerGroup,
      stripe: group + stream + 1)
  }

  private func writeTile(stream: Int, tile: Int) throws(DriveError) {
    let elementByteCount = 2 * PageLayout.tilePositionCount
    for page in 0..<layout.pagesPerTile {
      let first = page * layout.elementsPerPage
      let count = min(layout.elementsPerPage, layout.headDim - first)
      try write(
        buffers.channelKeys(stream) + first * PageLayout.tilePositionCount,
        count * elementByteCount, from: layout.channelPage(stream: stream, tile: tile, page: page),
        stripe: page + stream)
    }
  }

  /// Writes bytes over as many pages as they take, on neighbouring channels.
  private func write(
    _ source: UnsafePointer<UInt16>, _ byteCount: Int, from page: Int, stripe: Int
  ) throws(DriveError) {
    let bytes = UnsafeRawPointer(source)
    var (offset, index) = (0, 0)
    while offset < byteCount {
      try translation.write(
        page + index, bytes + offset, byteCount: min(layout.pageByteCount, byteCount - offset),
        channel: (2 * stripe + index) % geometry.channelCount)
      offset += layout.pageByteCount
      index += 1
    }
  }

  // MARK: Reading

  /// The keys and values of a token group: in its buffer while it fills, else read from its pages.
  ///
  /// - Returns: keys [groups of sixteen][headDim][16], values [groups of sixteen][16][headDim].
  func readGroup(
    layer: Int, stream: Int, group: Int
  ) throws(DriveError) -> (keys: UnsafePointer<UInt16>, values: UnsafePointer<UInt16>) {
    if group == positionCounts[layer] / layout.groupPositions {
      operations.pagesFromMemory += 2 * layout.pagesPerGroup
      return (
        UnsafePointer(buffers.groupKeys(stream)), UnsafePointer(buffers.groupValues(stream))
      )
    }
    let first = layout.keyPage(stream: stream, group: group)
    for page in 0..<layout.pagesPerGroup {
      try readPage(first + page, into: buffers.keyPages + page * layout.pageByteCount)
      try readPage(
        first + layout.pagesPerGroup + page, into: buffers.valuePages + page * layout.pageByteCount)
    }
    return (
      UnsafeRawPointer(buffers.keyPages).assumingMemoryBound(to: UInt16.self),
      UnsafeRawPointer(buffers.valuePages).assumingMemoryBound(to: UInt16.self)
    )
  }

  func readPage(_ page: Int, into bytes: UnsafeMutablePointer<UInt8>) throws(DriveError) {
    if try translation.read(page, into: bytes) {
      operations.pagesRead += 1
      operations.bytesFiltered += layout.pageByteCount
    } else {
      operations.pagesFromMemory += 1
    }
  }
}
