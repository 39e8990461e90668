import Glibc
import InStorageAttention
import TensorBasics
import TestSupport
import Testing

/// The flash translation layer against a plain model, and flash that fails.
@Suite struct FlashTests {
  /// A translation layer with memory of its own.
  private struct Chip: ~Copyable {
    var translation: FlashTranslation
    private let memory: AlignedBuffer
    let geometry: FlashGeometry

    init(
      _ geometry: FlashGeometry, logicalPageCount: Int, eraseLimit: Int = 1 << 20,
      faults: FlashFaults = FlashFaults(), path: String? = nil
    ) throws {
      var measure = Arena.measuring
      _ = FlashTranslation.Tables(geometry, logicalPageCount: logicalPageCount, &measure)
      let flash = try FlashArray(
        geometry, faults, path.map { .named($0) } ?? .temporary(folder: "/var/tmp"))
      let memory = try AlignedBuffer(byteCount: measure.byteCount)
      var arena = Arena(memory.address)
      let tables = FlashTranslation.Tables(geometry, logicalPageCount: logicalPageCount, &arena)
      translation = FlashTranslation(flash, tables, eraseLimit: eraseLimit)
      self.memory = memory
      self.geometry = geometry
    }

    /// Writes a page whose bytes follow from `content`.
    mutating func write(_ page: Int, content: UInt64, channel: Int) throws {
      let bytes = Self.bytes(content, count: geometry.pageByteCount)
      try bytes.withUnsafeBytes {
        try translation.write(
          page, $0.baseAddress!, byteCount: geometry.pageByteCount, channel: channel)
      }
    }

    mutating func read(_ page: Int) throws -> [UInt8] {
      var bytes = [UInt8](
        repeating: 0, count: geometry.pageByteCount + FlashArray.spareByteCount)
      try bytes.withUnsafeMutableBytes {
        _ = try translation.read(page, into: $0.baseAddress!)
      }
      return Array(bytes[..<geometry.pageByteCount])
    }

    static func bytes(_ content: UInt64, count: Int) -> [UInt8] {
      var generator = SeededGenerator(seed: content)
      return (0..<count).map { _ in UInt8(truncatingIfNeeded: generator.next()) }
    }
  }

  @Test(arguments: UInt64(0)..<12)
  func `Random writes and reclaims hold what a dictionary holds`(seed: UInt64) throws {
    var generator = SeededGenerator(seed: seed)
    let geometry = smallFlash(
      channels: Int.random(in: 1...4, using: &generator),
      blocks: Int.random(in: 3...12, using: &generator),
      pages: Int.random(in: 1...8, using: &generator), pageByteCount: 512)
    let logicalPageCount = 4 * geometry.pageCount
    var chip = try Chip(geometry, logicalPageCount: logicalPageCount)
    var model: [Int: UInt64] = [:]
    // One block of each channel is kept free; a second one fills.
    let most = geometry.pageCount - 2 * geometry.channelCount * geometry.pagesPerBlock
    let cold = Int.random(in: 0...most / 2, using: &generator)
    for step in 0..<4000 {
      // More is written than given up, so that flash is nearly full most of the time.
      let isOld = model.count > cold && Int.random(in: 0..<10, using: &generator) < 4
      if model.count >= most || isOld,
        let page = model.keys.filter({ $0 >= cold }).randomElement(using: &generator)
      {
        chip.translation.reclaim(page)
        model[page] = nil
      } else {
        // The first pages stay for good, as a long context's do.
        let page = step < cold ? step : Int.random(in: cold..<logicalPageCount, using: &generator)
        guard model[page] == nil else { continue }
        try chip.write(
          page, content: UInt64(step), channel: page % geometry.channelCount)
        model[page] = UInt64(step)
      }
      #expect(chip.translation.usedPageCount == model.count)
      guard step % 100 == 99 else { continue }
      for (page, content) in model {
        #expect(try chip.read(page) == Chip.bytes(content, count: 512), "seed \(seed), \(step)")
      }
      for page in 0..<logicalPageCount {
        #expect(chip.translation.holds(page) == (model[page] != nil))
      }
    }
    let counts = chip.translation.flash.counts
    #expect(counts.pagesProgrammed == counts.bytesProgrammed / 512)
    #expect(counts.readRetries == 0 && counts.uncorrectablePages == 0)
    #expect(counts.blocksErased > 10)
    // Blocks of one page are never in part in use.
    #expect(counts.pagesMoved > 0 || geometry.pagesPerBlock == 1)
  }

  @Test func `Wear stays level although half of the pages never change`() throws {
    let geometry = smallFlash(channels: 2, blocks: 16, pages: 4, pageByteCount: 512)
    var chip = try Chip(geometry, logicalPageCount: 20_000)
    for page in 0..<64 { try chip.write(page, content: UInt64(page), channel: page) }
    for page in 64..<20_000 {
      try chip.write(page, content: 1, channel: page)
      if page >= 64 + 30 { chip.translation.reclaim(page - 30) }
    }
    let wear = chip.translation.eraseRange
    #expect(wear.upperBound > 50)
    // A block just past the limit is moved when the next one opens.
    #expect(wear.upperBound - wear.lowerBound <= 2 * FlashTranslation.wearGap, "\(wear)")
    #expect(chip.translation.flash.counts.pagesMoved > 0)
    for page in 0..<64 {
      #expect(try chip.read(page) == Chip.bytes(UInt64(page), count: 512))
    }
  }

  @Test func `A full and a worn-out drive say so, and lose nothing`() throws {
    let geometry = smallFlash(channels: 2, blocks: 4, pages: 4, pageByteCount: 512)
    var chip = try Chip(geometry, logicalPageCount: 100)
    var written = 0
    var cause: DriveError?
    while cause == nil, written < 100 {
      do throws(any Error) {
        try chip.write(written, content: UInt64(written), channel: written)
        written += 1
      } catch { cause = error as? DriveError }
    }
    guard case .full = cause else {
      Issue.record("\(String(describing: cause))")
      return
    }
    #expect(written == 2 * 3 * 4, "all but the block kept free of each channel")
    for page in 0..<written {
      #expect(try chip.read(page) == Chip.bytes(UInt64(page), count: 512))
    }

    var tired = try Chip(geometry, logicalPageCount: 4000, eraseLimit: 5)
    cause = nil
    for page in 0..<4000 where cause == nil {
      do throws(any Error) {
        try tired.write(page, content: 0, channel: page)
        tired.translation.reclaim(page)
      } catch { cause = error as? DriveError }
    }
    guard case .wornOut(let retired, 5) = cause else {
      Issue.record("\(String(describing: cause))")
      return
    }
    #expect(retired >= 6 && tired.translation.eraseRange.upperBound == 5)
  }

  @Test func `Bit errors are corrected, retried or reported, never passed on`() throws {
    let geometry = smallFlash(channels: 1, blocks: 8, pages: 4, pageByteCount: 4096)
    // 33 Ki bits: on average 33 errors of 160 that are corrected, then 165, then 5000.
    for (rate, outcome) in [(1e-3, 0), (5e-3, 1), (0.15, 2)] {
      var chip = try Chip(
        geometry, logicalPageCount: 24, faults: FlashFaults(bitErrorRate: rate, seed: 9))
      for page in 0..<24 { try chip.write(page, content: UInt64(page), channel: 0) }
      var uncorrectable = 0
      for page in 0..<24 {
        do {
          #expect(try chip.read(page) == Chip.bytes(UInt64(page), count: 4096))
        } catch DriveError.uncorrectable { uncorrectable += 1 }
      }
      let counts = chip.translation.flash.counts
      #expect((counts.bitsCorrected > 0) == (outcome < 2))
      #expect((counts.readRetries > 0) == (outcome > 0))
      #expect(uncorrectable == (outcome == 2 ? 24 : 0))
      #expect(counts.uncorrectablePages == uncorrectable)
    }
  }

  @Test func `A damaged flash file is noticed`() throws {
    let folder = TemporaryFolder()
    let path = folder.path + "/flash"
    let geometry = smallFlash(channels: 1, blocks: 4, pages: 2, pageByteCount: 512)
    for damage in 0..<3 {
      var chip = try Chip(geometry, logicalPageCount: 8, path: path)
      for page in 0..<4 { try chip.write(page, content: UInt64(page), channel: 0) }
      var bytes = folder.read("flash")
      let stride = 512 + FlashArray.spareByteCount
      switch damage {
      case 0: bytes[stride + 100] ^= 4
      case 1:
        // One whole page in another's place.
        bytes.replaceSubrange(stride..<2 * stride, with: Array(bytes[..<stride]))
      default: bytes.removeLast(bytes.count - stride - 10)
      }
      try bytes.withUnsafeBytes { source in
        let file = try #require(fopen(path, "r+"))
        defer { fclose(file) }
        #expect(ftruncate(fileno(file), source.count) == 0)
        #expect(fwrite(source.baseAddress, 1, source.count, file) == source.count)
      }
      #expect(try chip.read(0) == Chip.bytes(0, count: 512))
      #expect(throws: DriveError.self) { try chip.read(1) }
      #expect(chip.translation.flash.counts.readRetries == 4)
    }
  }
}
