public import Kernels

/// What the host asks of a drive, over the bus.
///
/// A command is an entry of ``entryByteCount`` bytes that the drive fetches, as in NVMe, and a completion of
/// ``completionByteCount`` that it writes back. Its payload is moved by the drive, from and to memory that
/// the host lends until the completion.
public enum DriveCommand: @unchecked Sendable {
  // Safety: memory behind the pointers is the drive's from submission to completion.

  /// Says what the drive will hold; the first command.
  case configure(DriveContents)
  /// Takes keys and values of positions that follow those of the layer: `payload` is
  /// [tokenCount][heads of the layer on this drive] × (key [headDim], value [headDim]), f16.
  case append(layer: Int, position: Int, tokenCount: Int, payload: UnsafePointer<UInt16>)
  /// Attends with the queries of the layer's heads on this drive, f32, and writes their partials: maximum, sum
  /// and output of each, f32. Where it `continues` it takes the partials of earlier tiles first. `queries` are
  /// [queryHeadCount, headDim] and `partials` those of all heads; the drive moves those of its own.
  case fold(
    layer: Int, visible: VisibleRange, queries: UnsafePointer<Float>, partials: TokenPartials,
    continues: Bool)
  /// Gives up positions of a layer that no later query sees. The next that are appended may begin there.
  case reclaim(layer: Int, before: Int)
  /// Gives up everything.
  case reclaimAll

  /// An entry of a submission queue, and of a completion queue (NVM Express Base Specification).
  public static let entryByteCount = 64
  public static let completionByteCount = 16

  /// What the command moves over the bus; `contents` are those of the drive it goes to.
  public func traffic(_ contents: DriveContents) -> BusTraffic {
    var traffic = BusTraffic()
    traffic.commandCount = 1
    traffic.bytesToDrive = Self.entryByteCount
    traffic.bytesFromDrive = Self.completionByteCount
    switch self {
    case .configure(let contents):
      // Lengths and counts; of each layer its heads (the first, and the step between them) and window.
      traffic.bytesToDrive += 16 + 16 * contents.layerCount
    case .append(let layer, _, let tokenCount, _):
      traffic.bytesToDrive +=
        tokenCount * contents.heads[layer].count * 4 * contents.headDim
    case .fold(let layer, _, _, _, let continues):
      let headCount = contents.heads[layer].count
      let partials =
        headCount
        * AttentionPartials.byteCount(queryCount: contents.groupSize, headDim: contents.headDim)
      traffic.bytesToDrive +=
        headCount * contents.groupSize * 4 * contents.headDim + (continues ? partials : 0)
      traffic.bytesFromDrive += partials
    case .reclaim, .reclaimAll: break
    }
    return traffic
  }
}
