package import Kernels
import TensorBasics

/// Several computational storage drives that attend for a decoder, each for KV heads of its own: the host's
/// side.
///
/// A layer's heads are dealt out in turn, and dealing goes on where the layer before ended: head h of layer
/// l lies on drive (l · keyValueHeadCount + h) mod driveCount. All drives share the model evenly, however few
/// heads a layer has; of more drives than heads, a layer keeps only as many busy as it has heads. A head is
/// never divided, because SparF's choice of positions is one of a whole head (docs/in-storage-device.md).
///
/// The host rounds keys and values to f16 as its own store does.
package final class DriveArray: DecodeAttention {
  /// The model's side of attention.
  public struct Shape: Sendable {
    public var layerCount: Int
    public var queryHeadCount: Int
    public var keyValueHeadCount: Int
    public var headDim: Int
    public var contextLength: Int
    /// Of each layer, positions that a token sees, its own included; nil = all.
    public var windows: [Int?]
    /// As `DecodeAttention.hostWindow`; more than the context is the whole context.
    public var hostWindow: Int

    public init(
      layerCount: Int, queryHeadCount: Int, keyValueHeadCount: Int, headDim: Int,
      contextLength: Int, windows: [Int?], hostWindow: Int = 0
    ) {
      self.layerCount = layerCount
      self.queryHeadCount = queryHeadCount
      self.keyValueHeadCount = keyValueHeadCount
      self.headDim = headDim
      self.contextLength = contextLength
      self.windows = windows
      self.hostWindow = hostWindow
    }

    /// Positions from the start that drives ever come to hold.
    public var heldPositionCount: Int { heldEnd(position: contextLength - 1) }

    /// Where the tiles end that drives attend over for a token at `position`.
    public func heldEnd(position: Int) -> Int {
      let size = AttentionTile.positionCount
      return hostWindow == 0 ? position + 1 : max(0, position + 1 - hostWindow) / size * size
    }

    /// Whether tokens of a layer ever see positions that drives hold.
    func usesDrives(layer: Int) -> Bool {
      heldPositionCount > 0 && hostWindow < windows[layer] ?? .max
    }
  }

  public let shape: Shape
  public let drives: [ComputationalDrive]
  /// Bytes that a host that attends itself would have moved, with keys and values on a drive without an engine.
  ///
  /// For each attended token these are all visible keys and values of every head, and for each appended position its
  /// own, in f16.
  public private(set) var hostPathByteCount = 0
  /// Calls of ``fold(layer:visible:queries:into:continues:)``.
  public private(set) var foldCount = 0
  /// Of each layer, the drives that hold heads of it.
  private let holders: [[Int]]
  /// What appends move, of each drive from its offset on; filled anew when the drive is done with it.
  private let payloads: AlignedBuffer
  private let payloadOffsets: [Int]
  /// One position in the kernel's layout, for rounding.
  private let rounding: AlignedBuffer
  /// Of each layer, where what was appended ends, and positions that drives were told to give up.
  private var appendedEnds: [Int]
  private var reclaimedCounts: [Int]

  /// Positions of one `append` command.
  public static let appendTokenCount = 64
  private static let largestDriveCount = 1024
  /// What a drive's thread touches of its stack, and what small things it allocates.
  private static let threadByteCount = 64 << 10

  /// Starts `driveCount` drives of one configuration; a named flash file gets the drive's number after its
  /// name.
  ///
  /// - Throws: ``DriveError``.
  public init(
    _ shape: Shape, driveCount: Int, _ configuration: DriveConfiguration
  ) throws(DriveError) {
    let contents = try Self.contents(shape, driveCount: driveCount)
    guard shape.hostWindow == 0 || !configuration.engine.isSparse else {
      throw .impossible(
        "SparF chooses among all positions that a token sees, so the host cannot attend over some of them: use the "
          + "dense engine, or no host window")
    }
    var drives: [ComputationalDrive] = []
    for (index, part) in contents.enumerated() {
      var own = configuration
      own.faults.seed &+= UInt64(index)
      if case .named(let path) = configuration.file, driveCount > 1 {
        own.file = .named("\(path).\(index)")
      }
      drives.append(try ComputationalDrive(own, part))
    }
    self.shape = shape
    self.drives = drives
    reclaimedCounts = Array(repeating: 0, count: shape.layerCount)
    appendedEnds = reclaimedCounts
    holders = (0..<shape.layerCount).map { layer in
      contents.indices.filter { !contents[$0].heads[layer].isEmpty }
    }
    var (offsets, next) = ([Int](), 0)
    for part in contents {
      offsets.append(next)
      next += AlignedBuffer.roundedUp(Self.payloadByteCount(part))
    }
    payloadOffsets = offsets
    do throws(AllocationError) {
      rounding = try AlignedBuffer(byteCount: KeyValueGroup.byteCount(headDim: shape.headDim))
      payloads = try AlignedBuffer(byteCount: next)
    } catch { throw .allocation(error) }
  }

  deinit {
    // Commands under way read what was lent to them, whether they fail or not.
    for drive in drives {
      do { try drive.wait() } catch { continue }
    }
  }

  /// What each drive holds of a model.
  ///
  /// - Throws: ``DriveError/impossible(_:)`` where heads cannot be divided so.
  public static func contents(
    _ shape: Shape, driveCount: Int
  ) throws(DriveError) -> [DriveContents] {
    try checkCount(driveCount)
    guard shape.keyValueHeadCount > 0, shape.queryHeadCount % shape.keyValueHeadCount == 0,
      shape.windows.count == shape.layerCount
    else { throw .impossible("query heads must be a multiple of KV heads") }
    guard shape.hostWindow >= 0 else {
      throw .impossible(
        "a host window of \(shape.hostWindow) positions is not possible: 0 or more")
    }
    return (0..<driveCount).map { drive in
      DriveContents(
        heads: (0..<shape.layerCount).map { layer in
          (0..<shape.keyValueHeadCount).filter {
            (layer * shape.keyValueHeadCount + $0) % driveCount == drive
              && shape.usesDrives(layer: layer)
          }
        },
        windows: shape.windows, headDim: shape.headDim,
        groupSize: shape.queryHeadCount / shape.keyValueHeadCount,
        contextLength: max(1, shape.heldPositionCount))
    }
  }

  /// - Throws: ``DriveError/impossible(_:)`` if there cannot be so many drives.
  package static func checkCount(_ driveCount: Int) throws(DriveError) {
    guard (1...largestDriveCount).contains(driveCount) else {
      throw .impossible("\(driveCount) drives are not possible: 1 to \(largestDriveCount)")
    }
  }

  /// Memory of the drives and of what the host lends them, all of this process.
  public static func memoryByteCount(
    _ shape: Shape, driveCount: Int, _ configuration: DriveConfiguration
  ) throws(DriveError) -> Int {
    var sum = 0
    for part in try contents(shape, driveCount: driveCount) {
      sum += try ComputationalDrive.memoryByteCount(configuration, part)
      sum += AlignedBuffer.roundedUp(payloadByteCount(part)) + threadByteCount
    }
    return sum
  }

  private static func payloadByteCount(_ contents: DriveContents) -> Int {
    let heads = contents.heads.map(\.count).max() ?? 0
    return appendTokenCount * heads * 4 * contents.headDim
  }

  // MARK: DecodeAttention

  package var hostWindow: Int { shape.hostWindow }

  /// As the protocol says; what a command meets is thrown by a later call.
  ///
  /// - Throws: ``DriveFailure``.
  package func append(
    layer: Int, position: Int, tokenCount: Int, keys: UnsafePointer<Float>,
    values: UnsafePointer<Float>
  ) throws {
    let width = shape.keyValueHeadCount * shape.headDim
    if position > appendedEnds[layer], position % KeyValueBlock.positionCount == 0,
      shape.windows[layer] != nil
    {
      for index in holders[layer] {
        drives[index].submit(.reclaim(layer: layer, before: position))
      }
    }
    appendedEnds[layer] = position + tokenCount
    var first = 0
    while first < tokenCount {
      let count = min(Self.appendTokenCount, tokenCount - first)
      for index in holders[layer] {
        let drive = drives[index]
        // The drive may still be reading what was lent before.
        try wait(index)
        let payload = (payloads.address + payloadOffsets[index])
          .assumingMemoryBound(to: UInt16.self)
        pack(
          drive.contents.heads[layer], tokenCount: count, keys: keys + first * width,
          values: values + first * width, into: payload)
        drive.submit(
          .append(
            layer: layer, position: position + first, tokenCount: count, payload: payload))
      }
      first += count
    }
    hostPathByteCount += tokenCount * 4 * width
  }

  /// - Throws: ``DriveFailure``; the partials mean nothing then.
  package func fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, into partials: TokenPartials,
    continues: Bool
  ) throws {
    reclaim(layer: layer, before: Int(visible.first))
    for index in holders[layer] {
      drives[index].submit(
        .fold(
          layer: layer, visible: visible, queries: queries, partials: partials,
          continues: continues))
    }
    // All are waited for even where one failed: they write to the partials.
    var failure: DriveFailure?
    for index in holders[layer] {
      do throws(DriveFailure) { try wait(index) } catch { failure = failure ?? error }
    }
    if let failure { throw failure }
    foldCount += 1
    hostPathByteCount +=
      (Int(visible.last) - Int(visible.first) + 1) * 4 * shape.keyValueHeadCount
      * shape.headDim
  }

  private func wait(_ index: Int) throws(DriveFailure) {
    do { try drives[index].wait() } catch { throw DriveFailure(drive: index, cause: error) }
  }

  public func reset() {
    for drive in drives { drive.submit(.reclaimAll) }
    for layer in 0..<shape.layerCount { (reclaimedCounts[layer], appendedEnds[layer]) = (0, 0) }
  }

  /// Tells drives what a window left behind, a tile at a time.
  private func reclaim(layer: Int, before position: Int) {
    let end = position / AttentionTile.positionCount * AttentionTile.positionCount
    guard shape.windows[layer] != nil, end > reclaimedCounts[layer] else { return }
    reclaimedCounts[layer] = end
    for index in holders[layer] { drives[index].submit(.reclaim(layer: layer, before: end)) }
  }

  /// Rounds keys and values of `heads` to f16, as ``KeyValueBlock`` does, in the order of the payload.
  private func pack(
    _ heads: [Int], tokenCount: Int, keys: UnsafePointer<Float>, values: UnsafePointer<Float>,
    into payload: UnsafeMutablePointer<UInt16>
  ) {
    let length = shape.headDim
    let rounded = rounding.address.assumingMemoryBound(to: UInt16.self)
    var target = payload
    for token in 0..<tokenCount {
      for head in heads {
        let offset = (token * shape.keyValueHeadCount + head) * length
        KeyValueBlock.store(
          key: keys + offset, value: values + offset, headDim: length, position: 0,
          into: rounding.address)
        for element in 0..<length {
          target[element] = rounded[element * KeyValueGroup.positionCount]
        }
        (target + length)
          .update(from: rounded + KeyValueGroup.positionCount * length, count: length)
        target += 2 * length
      }
    }
  }

  // MARK: Statistics

  /// What all drives did together; erases are those of the least and the most worn block of any.
  public var statistics: DriveStatistics {
    let all = drives.map(\.statistics)
    var sum = DriveStatistics()
    sum.leastEraseCount = all.map(\.leastEraseCount).min() ?? 0
    sum.mostEraseCount = all.map(\.mostEraseCount).max() ?? 0
    for part in all {
      sum.bus += part.bus
      sum.operations += part.operations
      sum.flash += part.flash
      sum.usedPageCount += part.usedPageCount
      sum.pageCount += part.pageCount
      sum.retiredBlockCount += part.retiredBlockCount
      sum.memoryByteCount += part.memoryByteCount
    }
    return sum
  }

  /// Drives that hold any head.
  public var usedDriveCount: Int {
    drives.count { drive in drive.contents.heads.contains { !$0.isEmpty } }
  }
}
