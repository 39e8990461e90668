import BlockIO
import Calibration
import Glibc
import TensorBasics
import TestSupport
import Testing

@Suite struct CacheTests {
  private let folder: TemporaryCacheFolder
  private let file = TemporaryFile([1, 2, 3], name: "calibrated")
  private let cache: CalibrationCache

  init() {
    folder = TemporaryCacheFolder()
    cache = CalibrationCache(folder: folder.path + "/a/b")
  }

  private func driveProfile() throws -> DriveProfile {
    DriveProfile(
      drive: try #require(DriveIdentity(ofFileAt: file.path)), backend: "pread",
      blockByteCount: 1 << 19, queueDepth: 24, bytesPerSecond: 1.25e9,
      processorSecondsPerByte: 3.5e-11, random4KiBytesPerSecond: 1.5e8,
      random32KiBytesPerSecond: 7e8)
  }

  /// Of this machine, as the cache demands.
  private func computeProfile() throws -> ComputeProfile {
    try ComputeMeasurement(threadCount: 2, memoryByteCount: 1)
      .profile(
        kinds: [
          TokenWork.Weights(type: .q4_0, layout: .interleaved),
          TokenWork.Weights(type: .f32, layout: .rowMajor),
        ], seconds: 0.01
      ).0
  }

  @Test func `What is stored comes back, for the same drive and back end alone`() throws {
    let profile = try driveProfile()
    #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == nil)
    try cache.store(profile)
    try cache.store(profile)
    #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == profile)
    #expect(cache.driveProfile(forFileAt: file.path, backend: .uring) == nil)
    #expect(cache.driveProfile(forFileAt: "/proc/self/stat", backend: .pread) == nil)
    #expect(cache.driveProfile(forFileAt: file.path + "-missing", backend: .pread) == nil)
    let compute = try computeProfile()
    #expect(cache.computeProfile(threadCount: 2) == nil)
    try cache.store(compute)
    #expect(cache.computeProfile(threadCount: 2) == compute)
    #expect(cache.computeProfile(threadCount: 3) == nil)
    let names = folder.names(in: "a/b")
    #expect(names.count == 2 && names.allSatisfy { $0.hasSuffix(".json") }, "no leftovers")
  }

  @Test func `A drive that came in another's place has no profile`() throws {
    let here = try driveProfile()
    for change in 0..<3 {
      var profile = here
      switch change {
      case 0: profile.drive.model += "2"
      case 1: profile.drive.sectorCount += 1
      default: profile.drive.fileSystem += "2"
      }
      try cache.store(profile)
      #expect(folder.names(in: "a/b").count == 1, "of the same number")
      #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == nil, "change \(change)")
    }
    try cache.store(here)
    #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == here)
  }

  @Test func `Nowhere to keep it is no error, a place that cannot be written to is one`() throws {
    let profile = try driveProfile()
    try CalibrationCache(folder: nil).store(profile)
    #expect(throws: BlockIOError.self) {
      try CalibrationCache(folder: "/proc/none").store(profile)
    }
  }

  @Test func `A new measurement keeps older rates of other weights`() throws {
    let old = try computeProfile()
    var new = old
    new.products.removeLast()
    new.products[0].decodeBytesPerSecond = 5e9
    let kept = new.keepingOthers(of: old)
    #expect(kept.products.count == 2)
    #expect(kept.rate(.q4_0, .interleaved)?.decodeBytesPerSecond == 5e9)
    #expect(kept.rate(.f32, .rowMajor) == old.rate(.f32, .rowMajor))
  }

  @Test func `Damage is ignored or harmless, and the next measurement replaces it`() throws {
    let profile = try driveProfile()
    try cache.store(profile)
    let name = try #require(folder.names(in: "a/b").first)
    let path = "\(folder.path)/a/b/\(name)"
    let intact = folder.read(path)
    var outcomes = (kept: 0, ignored: 0)
    func check(_ bytes: [UInt8], _ label: String) {
      folder.write(path, bytes)
      guard let read = cache.driveProfile(forFileAt: file.path, backend: .pread) else {
        outcomes.ignored += 1
        return
      }
      outcomes.kept += 1
      #expect((4096...16 << 20).contains(read.blockByteCount), "\(label)")
      #expect((1...1024).contains(read.queueDepth), "\(label)")
      #expect(read.bytesPerSecond > 0 && read.bytesPerSecond.isFinite, "\(label)")
    }
    for count in 0..<intact.count - 2 { check(Array(intact[..<count]), "first \(count) bytes") }
    #expect(outcomes.kept == 0, "no truncated file is taken for a profile")
    for seed in UInt64(0)..<600 {
      var generator = SeededGenerator(seed: seed)
      check(Mutation.mutate(intact, using: &generator), "seed \(seed)")
    }
    check([UInt8](repeating: 0x20, count: 1 << 20), "too long")
    check(Array(String(repeating: "[", count: 5000).utf8), "deep")
    #expect(outcomes.ignored > 400)
    try cache.store(profile)
    #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == profile)
  }

  @Test func `Extreme numbers and other versions are no profile`() throws {
    try cache.store(try driveProfile())
    let name = try #require(folder.names(in: "a/b").first)
    let path = "\(folder.path)/a/b/\(name)"
    let text = String(decoding: folder.read(path), as: UTF8.self)
    for (from, to) in [
      ("\"version\":1", "\"version\":2"), ("524288", "524287"), ("524288", "0"),
      ("524288", "9223372036854775807"), (":24,", ":0,"), (":24,", ":99999999,"),
      ("1250000000", "0"), ("1250000000", "-5"), ("1250000000", "1e300"),
      ("\"pread\"", "\"mmap\""),
    ] {
      let parts = text.split(separator: from, maxSplits: 1, omittingEmptySubsequences: false)
      try #require(parts.count == 2, "\(from)")
      folder.write(path, Array((parts[0] + to + parts[1]).utf8))
      #expect(cache.driveProfile(forFileAt: file.path, backend: .pread) == nil, "\(to)")
    }
  }
}

/// A folder that is removed with what a cache put there.
private final class TemporaryCacheFolder {
  let path: String

  init() {
    var template = Array("/tmp/flashinfer-cache-XXXXXX".utf8CString)
    path = template.withUnsafeMutableBufferPointer { buffer in
      guard let base = buffer.baseAddress, let made = mkdtemp(base) else { return "/tmp/none" }
      return String(cString: made)
    }
  }

  deinit {
    for name in names(in: "a/b") { unlink("\(path)/a/b/\(name)") }
    for folder in ["/a/b", "/a", ""] { rmdir(path + folder) }
  }

  func names(in folder: String) -> [String] {
    guard let directory = opendir("\(path)/\(folder)") else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names.sorted()
  }

  func read(_ path: String) -> [UInt8] {
    guard let file = fopen(path, "rb") else { return [] }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    return Array(bytes[..<fread(&bytes, 1, bytes.count, file)])
  }

  func write(_ path: String, _ bytes: [UInt8]) {
    guard let file = fopen(path, "wb") else { return }
    fwrite(bytes, 1, bytes.count, file)
    fclose(file)
  }
}
