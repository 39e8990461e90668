import CommandLineSupport
import InStorageAttention
import Kernels
import ModelFormat
import TensorBasics

/// What computational storage drives did for an answer: the object `inStorage` of `--json`.
struct InStorageReport {
  private let statistics: DriveStatistics
  private let driveCount: Int
  private let usedDriveCount: Int
  private let engine: String
  /// Newest positions that the host attended over, in whole tiles.
  private let hostWindow: Int
  private let hostPathBytes: Int
  /// Whether the host took over.
  private let fellBack: Bool
  /// What attention of the answer would have taken in drives like the paper's; nil if the timing model
  /// knows no such work.
  private let modelledSeconds: Double?

  /// - Parameter positions: of the answer's tokens.
  init(_ drives: DriveArray, fellBack: Bool, model: ModelParameters, positions: Range<Int>) {
    statistics = drives.statistics
    driveCount = drives.drives.count
    usedDriveCount = drives.usedDriveCount
    engine =
      switch drives.drives.first?.configuration.engine {
      case .sparse(let options):
        "sparf=\(options.channelFraction),\(options.tokenFraction)"
      default: "dense"
      }
    let tile = AttentionTile.positionCount
    hostWindow = (drives.shape.hostWindow + tile - 1) / tile * tile
    hostPathBytes = drives.hostPathByteCount
    self.fellBack = fellBack
    modelledSeconds = Self.seconds(
      drives, model, positions, usedDriveCount: max(1, drives.usedDriveCount))
  }

  /// Time of all layers and tokens, with queries on their way to the drives and partials on theirs back; contexts in
  /// between are taken to lie on the line from the first to the last.
  private static func seconds(
    _ drives: DriveArray, _ model: ModelParameters, _ positions: Range<Int>, usedDriveCount: Int
  ) -> Double? {
    // The drives hold nothing that the first tokens see where all of it is in the host's window.
    let positions = positions.drop { drives.shape.heldEnd(position: $0) == 0 }
    guard let first = positions.first, let last = positions.last else { return nil }
    let mode: AttentionMode =
      switch drives.drives.first?.configuration.engine {
      case .sparse(let options): .sparse(compression: options.tokenFraction)
      default: .dense
      }
    let headCount = (model.keyValueHeadCount + usedDriveCount - 1) / usedDriveCount
    let times = [first, last].map { position in
      try? AttentionTiming(
        model: model, drive: .paper, commandCount: headCount,
        context: drives.shape.heldEnd(position: position), mode: mode
      ).nanoseconds
    }
    guard let start = times[0], let end = times[1] else { return nil }
    let transfer = model.foldTransferNanoseconds(headCount: headCount, drive: .paper)
    return ((start + end) / 2 + transfer) * Double(model.layerCount * positions.count) / 1e9
  }

  func write(to json: inout JSONWriter) {
    let (bus, flash, operations) = (statistics.bus, statistics.flash, statistics.operations)
    json.object("inStorage") { json in
      json.text("engine", engine)
      json.number("devices", driveCount)
      json.number("usedDevices", usedDriveCount)
      json.number("hostWindow", hostWindow)
      json.flag("fellBack", fellBack)
      json.number("commands", bus.commandCount)
      json.number("busBytes", bus.byteCount)
      json.number("busBytesToDevices", bus.bytesToDrive)
      json.number("busBytesFromDevices", bus.bytesFromDrive)
      json.number("hostPathBytes", hostPathBytes)
      json.number("modelledSeconds", modelledSeconds)
      json.object("flash") { json in
        json.number("bytesWritten", flash.bytesProgrammed)
        json.number("pagesRead", flash.pagesRead)
        json.number("pagesUsed", statistics.usedPageCount)
        json.number("pages", statistics.pageCount)
        json.number("pagesMoved", flash.pagesMoved)
        json.number("blocksErased", flash.blocksErased)
        json.number("leastErases", statistics.leastEraseCount)
        json.number("mostErases", statistics.mostEraseCount)
        json.number("retiredBlocks", statistics.retiredBlockCount)
        json.number("bitsCorrected", flash.bitsCorrected)
        json.number("readRetries", flash.readRetries)
        json.number("uncorrectablePages", flash.uncorrectablePages)
      }
      json.object("operations") { json in
        json.number("pagesRead", operations.pagesRead)
        json.number("pagesFromMemory", operations.pagesFromMemory)
        json.number("bytesFiltered", operations.bytesFiltered)
        json.number("bytesPassed", operations.bytesPassed)
        json.number("multiplyAdds", operations.multiplyAdds)
        json.number("exponentials", operations.exponentials)
        json.number("selections", operations.selections)
      }
      json.number("deviceMemoryBytes", statistics.memoryByteCount)
    }
  }

  /// For people: a few lines, each shorter than 80 characters.
  var summary: [String] {
    let (bus, flash) = (statistics.bus, statistics.flash)
    var lines = [
      "in-storage: \(engine) on \(usedDriveCount) of \(driveCount) drives"
        + (hostWindow > 0 ? ", the newest \(hostWindow) positions on the host" : "")
        + (fellBack ? "; the host took over" : ""),
      "bus: \(ByteCount(bus.byteCount)) in \(bus.commandCount) commands, the host path "
        + "\(ByteCount(hostPathBytes))",
      "flash: \(ByteCount(flash.bytesProgrammed)) written, \(flash.pagesRead) pages read, "
        + "\(statistics.mostEraseCount) erases at most",
    ]
    if flash.bitsCorrected + flash.readRetries > 0 {
      lines.append(
        "errors: \(flash.bitsCorrected) bits corrected, \(flash.readRetries) reads retried")
    }
    lines.append("drives' memory: \(ByteCount(statistics.memoryByteCount))")
    if let modelledSeconds {
      lines.append(
        "attention in drives like the paper's: \((modelledSeconds * 1e4).rounded() / 1e4) s "
          + "(simulated)")
    }
    return lines
  }
}
