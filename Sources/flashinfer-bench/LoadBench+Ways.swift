import ArgumentParser
import BlockIO
import CommandLineSupport
import Glibc
import HostResources
import TensorBasics
import WeightLoader

/// What brings a file's bytes.
enum LoadWay: String, CaseIterable, ExpressibleByArgument {
  /// Reads of one size, as fast as they go: what the drive gives.
  case device
  /// The tensors of a file of tensors, by the public loader.
  case loader
  /// The file mapped, and a byte of every page looked at.
  case mmap
  /// The file read from its beginning to its end into one buffer.
  case read
}

extension LoadBench {
  /// One time that a file was brought.
  struct Passage {
    var byteCount: Int
    var nanoseconds: Int
    /// Of what was looked at, so that it is looked at.
    var sum: UInt64
  }

  /// Brings all tensors of a file once, or with `--random` some of them in random order.
  func stream() throws {
    var options = LoaderOptions()
    options.backend = io
    options.readByteCount = blockSize.bytes
    options.queueDepth = queueDepth
    let start = monotonicNanoseconds()
    let loader = try TensorLoader.open(file, ram: ram?.bytes, options: options)
    for note in loader.notes { Terminal.warn(note) }
    var firstNanoseconds: Int?
    let streamStart = monotonicNanoseconds()
    var passages: [(byteCount: Int, pieceCount: Int, nanoseconds: Int)] = []
    let progress = Progress.begin(
      "bringing tensors", total: (repeats ?? 1) * loader.tensors.reduce(0) { $0 + $1.byteCount },
      unit: random ? .unknown : .bytes)
    defer { progress.finish() }
    for _ in 0..<(repeats ?? 1) {
      let passageStart = monotonicNanoseconds()
      try loader.begin(random ? randomParts(of: loader) : nil)
      let before = passages.reduce(0) { $0 + $1.byteCount }
      var (byteCount, pieceCount) = (0, 0)
      while let piece = try loader.next() {
        firstNanoseconds = firstNanoseconds ?? monotonicNanoseconds()
        byteCount += piece.byteCount
        pieceCount += 1
        progress.update(before + byteCount)
        if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
      }
      passages.append((byteCount, pieceCount, monotonicNanoseconds() - passageStart))
    }
    let end = monotonicNanoseconds()
    let statistics = loader.statistics
    report(
      [
        Figure(
          "loadBytesPerSecond", samples: passages.map { Self.rate($0.byteCount, $0.nanoseconds) },
          .bytesPerSecond),
        Figure(
          "driveBytesPerSecond", Self.rate(statistics.bytesRead, end - streamStart), .bytesPerSecond
        ),
        Figure("bytes", passages[0].byteCount, .bytes),
        Figure("pieces", passages[0].pieceCount, .number),
        Figure("requests", Double(statistics.requests), .number),
        Figure("openSeconds", Double(streamStart - start) / 1e9, .seconds),
        Figure(
          "timeToFirstTensorSeconds", Double((firstNanoseconds ?? end) - start) / 1e9, .seconds),
        Figure("meanQueueDepth", statistics.meanQueueDepth, .number, limit: Double(queueDepth)),
        Figure(
          "peakResidentBytes", Double(ProcessMemory.peakResidentByteCount), .bytes,
          limit: Double(loader.plan.budgetByteCount)),
      ], asJSON: json)
  }

  /// As many parts as `--tensors` says, drawn without repetition.
  private func randomParts(of loader: TensorLoader) -> [TensorPart] {
    Array(loader.allParts.shuffled().prefix(tensors))
  }

  /// Looks at a byte of every page of the mapped file.
  func touchMapping() throws -> Passage {
    let (descriptor, byteCount) = try openForReading()
    defer { close(descriptor) }
    let start = monotonicNanoseconds()
    guard let bytes = Glibc.mmap(nil, byteCount, PROT_READ, MAP_SHARED, descriptor, 0),
      bytes != MAP_FAILED
    else { throw CommandError(.failure, "\(file) cannot be mapped") }
    defer { munmap(bytes, byteCount) }
    madvise(bytes, byteCount, MADV_SEQUENTIAL)
    var sum: UInt64 = 0
    let progress = Progress.begin("reading \(Progress.name(file))", total: byteCount, unit: .bytes)
    defer { progress.finish() }
    for offset in stride(from: 0, to: byteCount, by: AlignedBuffer.pageByteCount) {
      sum &+= UInt64(bytes.load(fromByteOffset: offset, as: UInt8.self))
      if offset & 0xF_FFFF == 0 { progress.update(offset) }
    }
    return Passage(byteCount: byteCount, nanoseconds: monotonicNanoseconds() - start, sum: sum)
  }

  /// Reads the file to its end with one `read` after the other.
  func readToEnd() throws -> Passage {
    let (descriptor, byteCount) = try openForReading()
    defer { close(descriptor) }
    let buffer = try AlignedBuffer(byteCount: blockSize.bytes)
    let start = monotonicNanoseconds()
    var (sum, done): (UInt64, Int) = (0, 0)
    let progress = Progress.begin("reading \(Progress.name(file))", total: byteCount, unit: .bytes)
    defer { progress.finish() }
    while case let count = Glibc.read(descriptor, buffer.address, blockSize.bytes), count != 0 {
      guard count > 0 else { throw CommandError(.failure, "\(file) cannot be read (\(errno))") }
      sum &+= UInt64(buffer.address.load(as: UInt8.self))
      done += count
      progress.update(done)
    }
    return Passage(byteCount: byteCount, nanoseconds: monotonicNanoseconds() - start, sum: sum)
  }

  private func openForReading() throws -> (descriptor: Int32, byteCount: Int) {
    let descriptor = file.withSystemPath { Glibc.open($0, O_RDONLY | O_CLOEXEC) }
    guard descriptor >= 0 else { throw CommandError(.noInput, "\(file) cannot be opened") }
    return (descriptor, lseek(descriptor, 0, SEEK_END) - lseek(descriptor, 0, SEEK_SET))
  }

  /// Brings the file `repeat` times in one of those ways.
  func measure(_ bring: () throws -> Passage) throws {
    let passages = try (0..<(repeats ?? 1)).map { _ in
      if Interruption.flag.isRaised { throw CommandError(.interrupted, "interrupted") }
      return try bring()
    }
    report(
      [
        Figure(
          "loadBytesPerSecond",
          samples: passages.map { Self.rate($0.byteCount, $0.nanoseconds) }, .bytesPerSecond),
        Figure("bytes", passages[0].byteCount, .bytes),
        Figure("peakResidentBytes", ProcessMemory.peakResidentByteCount, .bytes),
        Figure("sum", Double(passages[0].sum), .number),
      ], asJSON: json)
  }

  private static func rate(_ byteCount: Int, _ nanoseconds: Int) -> Double {
    Double(byteCount) / Double(max(1, nanoseconds)) * 1e9
  }
}
