import ArgumentParser
import CommandLineSupport
import InStorageAttention
import KVCache
import Runtime
import TensorBasics

/// Where the attention of generated tokens is computed.
struct AttentionArguments: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Where generated tokens' attention is computed: host, or in-storage in a functional model of \
      computational storage drives: in-storage:dense (the host's bits), \
      in-storage:dense,host-window=512 (the same bits; the host attends over that many of the newest \
      positions, rounded up to tiles of 512, and the drives over those before) or \
      in-storage:sparf=1/8 (approximate; the share of a query's elements and of positions; or \
      sparf=1/4,1/8 for both). The host keeps all keys and values as well.
      """, valueName: "place"))
  var attention = "host"

  @Option(help: "Drives that share the KV heads, with --attention in-storage (default: 1).")
  var devices: Int?

  @Option(
    help: ArgumentHelp(
      "Flash of each drive (default: what the context needs and a quarter).", valueName: "size"))
  var deviceFlash: ByteCount?

  @Option(
    help: ArgumentHelp(
      "Bound on the memory of each drive, which --ram bounds together with the process's own.",
      valueName: "size"))
  var deviceRam = ByteCount(2 << 30)

  @Option(
    help: ArgumentHelp(
      "Probability that a bit of the drives' flash is read wrong.", valueName: "rate"))
  var deviceBitErrors = 0.0

  @Option(help: "When a drive fails: end the run (fail), or go on with the host (fall-back).")
  var onDeviceError = DeviceErrorPolicy.fail

  enum DeviceErrorPolicy: String, ExpressibleByArgument, CaseIterable {
    case fail
    case fallBack = "fall-back"
  }

  func validate() throws {
    guard let (engine, _) = try place() else {
      guard devices == nil else { throw ValidationError("--devices needs --attention in-storage") }
      return
    }
    do throws(DriveError) {
      try engine.check()
      try FlashFaults(bitErrorRate: deviceBitErrors).check()
      try DriveArray.checkCount(driveCount)
    } catch { throw ValidationError("\(error)") }
  }

  private var driveCount: Int { devices ?? 1 }

  /// The drives' engine, and how many of the newest positions the host attends over; nil if it attends over all.
  private func place() throws -> (engine: AttentionEngineKind, hostWindow: Int)? {
    guard attention != "host" else { return nil }
    let (sparse, window) = ("in-storage:sparf=", ",host-window=")
    if attention.hasPrefix(sparse) {
      guard !attention.contains(window) else {
        throw ValidationError(
          "--attention: host-window goes with in-storage:dense; SparF chooses among all positions, so the host "
            + "cannot attend over some of them")
      }
      guard let options = SparseAttention(shares: attention.dropFirst(sparse.count)) else {
        throw ValidationError(
          "--attention: '\(attention.dropFirst(sparse.count))' is no share such as 1/8")
      }
      return (.sparse(options), 0)
    }
    for name in ["in-storage:dense", "in-storage"] {
      if attention == name { return (.dense, 0) }
      guard attention.hasPrefix(name + window) else { continue }
      let text = attention.dropFirst((name + window).count)
      guard let count = Int(text), count >= 0 else {
        throw ValidationError(
          "--attention: host-window is a number of positions such as 512, 0 or more, not '\(text)'")
      }
      return (.dense, count)
    }
    throw ValidationError(
      "--attention must be host, in-storage, in-storage:dense, in-storage:dense,host-window=512 or "
        + "in-storage:sparf=1/8, not '\(attention)'")
  }

  /// Drives for a session that `request` describes, whose memory becomes part of its budget; nil if the
  /// host attends.
  ///
  /// - Parameter folder: where their flash files lie, without names; nil = where temporary files do.
  func makeDrives(
    _ model: LanguageModel, for request: inout MemoryPlan.Request, folder: String?
  ) throws -> DriveArray? {
    guard let (engine, hostWindow) = try place() else { return nil }
    let shape = DriveArray.Shape(
      model.configuration, contextLength: request.contextLength,
      hostWindow: min(hostWindow, request.contextLength))
    var flash = try shape.flash(driveCount: driveCount, engine: engine)
    if let deviceFlash {
      flash = .holding(pageCount: deviceFlash.bytes / FlashGeometry.standardPageByteCount)
    }
    if folder == nil, let note = KeyValueOptions.defaultFolderNote { Terminal.warn(note) }
    let configuration = DriveConfiguration(
      flash: flash, memoryByteCount: deviceRam.bytes, engine: engine,
      faults: FlashFaults(bitErrorRate: deviceBitErrors),
      file: .temporary(folder: folder ?? KeyValueOptions.defaultFolder))
    request.callerByteCount += try DriveArray.memoryByteCount(
      shape, driveCount: driveCount, configuration)
    return try DriveArray(shape, driveCount: driveCount, configuration)
  }

  /// Makes `session` go on without drives that fail, where that was asked for.
  func setUpFallBack(_ session: Session) {
    guard onDeviceError == .fallBack else { return }
    session.onDecodeAttentionFailure = { error in
      Terminal.warn("\(error); the host goes on with attention of its own")
      return true
    }
  }
}
