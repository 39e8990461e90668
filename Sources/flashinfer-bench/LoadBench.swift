import ArgumentParser
import BlockIO
import Calibration
import CommandLineSupport
import ModelFormat
import TensorBasics

/// Reading speed of a drive.
struct LoadBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "load",
    abstract: "Bytes per second of reading a file, as weights are read.",
    discussion: """
      FILE is any file; with --through loader one of tensors, all of which are brought once. With \
      --tune the whole curve of block size and queue depth is measured, and the point chosen from it \
      is what later runs of a model on that drive read with. Points that may be chosen are measured again \
      until they agree; where they do not, the machine is too busy and nothing is kept.

      Examples:
        flashinfer-bench load model.bin
        flashinfer-bench load model.bin --fio
        flashinfer-bench load model.bin --tune
        flashinfer-bench load model.bin --block-size 4KiB --queue-depth 32 --random
      """)

  @Argument(help: "File to read.") var file: String
  @Option(
    help: ArgumentHelp("Bytes of one read, a multiple of 4 KiB.", valueName: "size"))
  var blockSize = ByteCount(1 << 20)
  @Option(help: "Reads in flight.") var queueDepth = 16
  @Flag(help: "Read at random multiples of the block size (default: one after the other).")
  var random = false
  @Option(help: "Seconds to read for (default: 4; with --tune 15 for all points together).")
  var seconds: Double?
  @Option(
    name: .customLong("repeat"),
    help: "Parts that --seconds are measured in, or times to bring the file (default: 4, or once).")
  var repeats: Int?
  @Option(help: "How to read: auto, uring, pread or mmap.") var io = StorageBackend.auto
  @Option(help: "What brings the bytes: device, loader, mmap or read.") var through = LoadWay.device
  @Option(help: "With --through loader --random: how many tensors.") var tensors = 2000
  @Option(
    help: ArgumentHelp("With --through loader: bound on the process's memory.", valueName: "size"))
  var ram: ByteCount?
  @Flag(help: "Also read with fio, where it is installed, to compare.") var fio =
    false
  @Flag(help: "Measure block size × queue depth and store the calibration.") var tune = false
  @OptionGroup var spread: SpreadArguments
  @Flag(help: "Print one JSON object.") var json = false
  @OptionGroup(title: "Output") var messages: OutputOptions

  func validate() throws {
    guard blockSize.bytes % 4096 == 0, (4096...64 << 20).contains(blockSize.bytes) else {
      throw ValidationError(
        "--block-size must be a multiple of 4 KiB up to 64 MiB, not \(blockSize)")
    }
    guard (1...1024).contains(queueDepth), blockSize.bytes * queueDepth <= 1 << 30 else {
      throw ValidationError(
        "--queue-depth must be between 1 and 1024, and all reads in flight at most 1 GiB")
    }
    guard (seconds ?? 1) > 0, (seconds ?? 1) <= 3600 else {
      throw ValidationError("--seconds must be above 0 and at most 3600")
    }
    guard (1...1000).contains(repeats ?? 1), !tune || repeats == nil else {
      throw ValidationError("--repeat must be between 1 and 1000, and does not go with --tune")
    }
    guard !tune || through == .device, ram == nil || through == .loader,
      !random || through == .device || through == .loader, tensors > 0
    else {
      throw ValidationError("--tune, --ram, --random and --tensors do not go with this --through")
    }
    guard !fio || (through == .device && !tune) else {
      throw ValidationError("--fio goes with --through device, and not with --tune")
    }
    guard !(tune && random) else {
      throw ValidationError("--tune measures reading one block after the other, not --random")
    }
  }

  func run() throws {
    Interruption.install()
    try reportingErrors {
      if through != .loader, GGUFSplit.isMember(fileName: Progress.name(file)) {
        Terminal.warn(
          "only this file is read, one of several of a split model; --through loader reads all of them"
        )
      }
      switch through {
      case _ where tune: try printCurve()
      case .device: try load()
      case .loader: try stream()
      case .mmap: try measure(touchMapping)
      case .read: try measure(readToEnd)
      }
    }
  }

  /// Measures one point.
  private func load() throws {
    let device = try openDevice(paths: [file], backend: io, queueDepth: queueDepth)
    try checkNotEmpty(device.fileByteCounts[0])
    var probe = ThroughputProbe(
      blockByteCount: blockSize.bytes, queueDepth: min(queueDepth, device.capacity),
      randomSeed: random ? UInt64.random(in: 0...UInt64.max) : nil)
    let partCount = repeats ?? 4
    probe.secondLimit = (seconds ?? 4) / Double(partCount)
    // Whole huge pages, also where less is needed.
    let page = 2 << 20
    let buffer = try AlignedBuffer(
      byteCount: (probe.bufferByteCount + page - 1) & ~(page - 1), prefersHugePages: true)
    device.register(buffer.bytes)
    Terminal.warn(notesOf: device)
    var result = ThroughputProbe.Measurement()
    var rates: [Double] = []
    let total = Int((seconds ?? 4) * 1000)
    let progress = Progress.begin(
      "reading \(Progress.name(file))", total: total, unit: .milliseconds)
    defer { progress.finish() }
    for _ in 0..<partCount {
      let measured = try probe.run(device, buffer: buffer.bytes, cancellation: Interruption.flag)
      if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
      rates.append(measured.bytesPerSecond)
      result += measured
      probe.firstBlock += measured.requestCount
      if random { probe.randomSeed = UInt64.random(in: 0...UInt64.max) }
    }
    progress.finish()
    let statistics = device.statistics
    let limit = fio ? try readWithFio() : nil
    report(
      [Figure("loadBytesPerSecond", samples: rates, .bytesPerSecond, limit: limit)]
        + (limit.map { [Figure("fioBytesPerSecond", $0, .bytesPerSecond)] } ?? []) + [
          Figure("bytesRead", Double(result.byteCount), .bytes),
          Figure("requests", Double(result.requestCount), .number),
          Figure("seconds", result.seconds, .seconds),
          Figure(
            "latencyMedianMicroseconds", Double(result.latency.quantileNanoseconds(0.5)) / 1e3,
            .microseconds),
          Figure(
            "latencyP99Microseconds", Double(result.latency.quantileNanoseconds(0.99)) / 1e3,
            .microseconds),
          Figure(
            "cpuSecondsPerGigabyte", result.processorSecondsPerByte * 1e9, .secondsPerGigabyte),
          Figure("meanQueueDepth", statistics.meanQueueDepth, .number, limit: Double(queueDepth)),
        ], asJSON: json)
  }

  /// The same reads by fio, in bytes per second.
  private func readWithFio() throws -> Double {
    let seconds = seconds ?? 4
    return try Progress.showing(
      "reading \(Progress.name(file)) with fio", total: Int(seconds * 1000), unit: .milliseconds
    ) { _ in
      // fio reads nothing of a file that is shorter than a block.
      let byteCount = try openDevice(paths: [file], backend: .pread, queueDepth: 1).fileByteCounts[
        0]
      return try Fio.bytesPerSecond(
        of: file, blockByteCount: min(blockSize.bytes, max(4096, byteCount / 4096 * 4096)),
        queueDepth: queueDepth, isRandom: random,
        seconds: seconds)
    }
  }

  /// Measures the curve, shows it, and keeps what is chosen from it.
  private func printCurve() throws {
    try checkNotEmpty(openDevice(paths: [file], backend: .pread, queueDepth: 1).fileByteCounts[0])
    var measurement = try DriveMeasurement(
      path: file, backend: io, memoryByteCount: 64 << 20, cancellation: Interruption.flag)
    Terminal.warn(notesOf: measurement.device)
    let pointCount = DriveMeasurement.blockByteCounts.count * DriveMeasurement.queueDepths.count
    let (points, profile) = try Progress.showing(
      "measuring block sizes and queue depths", total: pointCount, unit: .count("points")
    ) { progress in
      let points = try measurement.curve(
        secondsPerPoint: (seconds ?? 15) / Double(pointCount), mostPassCount: Self.mostPassCount
      ) { progress.update(fraction: $0) }
      return (points, try measurement.profile(choosingFrom: points))
    }
    if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
    spread.keep("the drive", spread: DrivePoint.choose(points)?.spread ?? 0) {
      () throws(BlockIOError) in try CalibrationCache.standard.store(profile)
    }
    if !json { Terminal.print(Self.table(points, profile)) }
    let curve = points.map { point in
      Figure(
        "loadBytesPerSecond/\(point.blockByteCount >> 10)KiB×\(point.queueDepth)",
        point.bytesPerSecond, .bytesPerSecond)
    }
    report(
      (json ? curve : []) + [
        Figure("chosenBlockBytes", Double(profile.blockByteCount), .bytes),
        Figure("chosenQueueDepth", Double(profile.queueDepth), .number),
        Figure("loadBytesPerSecond", profile.bytesPerSecond, .bytesPerSecond),
        Figure("cpuSecondsPerGigabyte", profile.processorSecondsPerByte * 1e9, .secondsPerGigabyte),
        Figure("random4KiBytesPerSecond", profile.random4KiBytesPerSecond, .bytesPerSecond),
        Figure("random32KiBytesPerSecond", profile.random32KiBytesPerSecond, .bytesPerSecond),
      ], asJSON: json)
  }

  private static let mostPassCount = 9

  private func checkNotEmpty(_ byteCount: Int) throws {
    guard byteCount > 0 else { throw CommandError(.badData, "\(file): the file is empty") }
  }

  /// The curve in GB/s, a row for each block size; the choice in brackets.
  private static func table(_ points: [DrivePoint], _ profile: DriveProfile) -> String {
    func cell(_ text: String) -> String { text.padded(to: -9) }
    let depths = DriveMeasurement.queueDepths
    var text = "GB/s, block size × reads in flight; [the choice]\n" + cell("")
    text += depths.map { cell("\($0)") }.joined() + "\n"
    for block in DriveMeasurement.blockByteCounts {
      text += cell("\(ByteCount(block))")
      for depth in depths {
        let point = points.first { $0.blockByteCount == block && $0.queueDepth == depth }
        let isChosen = block == profile.blockByteCount && depth == profile.queueDepth
        let rate = point.map { ($0.bytesPerSecond / 1e9).fixed(2) } ?? "–"
        text += cell(isChosen ? "[\(rate)]" : rate)
      }
      text += "\n"
    }
    return text
  }
}
