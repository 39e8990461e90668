import ModelFormat
import TensorBasics
import TestSupport
import Testing

@Suite struct StripeMemberTests {
  private static let member = StripeMember(
    setIdentifier: 0x0123_4567_89AB_CDEF, index: 1, unitByteCount: 1 << 16,
    imageByteCount: 40 << 12, paths: ["/drives/a/model.bin", "/drives/ü/model.bin", "c"])

  private func parse(
    _ bytes: [UInt8], fileByteCount: Int? = nil
  ) throws(FormatError) -> ParseProgress<StripeMember> {
    try withBytes(bytes) { buffer throws(FormatError) in
      try StripeMember.parse(buffer, fileByteCount: fileByteCount ?? buffer.count, path: "tiny")
    }
  }

  @Test func `A header comes back as it was written`() throws {
    let bytes = Self.member.encoded()
    #expect(bytes.count == StripeMember.headerByteCount)
    #expect(try parse(bytes + [1, 2, 3]).value == Self.member)
  }

  @Test func `Headers are, byte for byte, those built number by number`() throws {
    let image = try ImageBuilder.image(of: TinyModel().gguf(seed: 1).bytes())
    let paths = ["/a", "/b/c"]
    let members = StripeBuilder.members(of: image, unitByteCount: 8192, paths: paths)
    for index in 0..<2 {
      let header = StripeMember(
        setIdentifier: image.withUnsafeBytes { StripeMember.setIdentifier(image: $0) },
        index: index, unitByteCount: 8192, imageByteCount: image.count, paths: paths)
      #expect(Array(members[index][..<4096]) == header.encoded())
    }
  }

  @Test func `Every shorter file is truncated, every shorter prefix wants more`() {
    let bytes = Self.member.encoded()
    for count in 0..<bytes.count {
      let prefix = Array(bytes[..<count])
      do throws(FormatError) {
        _ = try parse(prefix)
        Issue.record("cut at \(count) and accepted")
      } catch { #expect(error.kind == .truncated && error.path == "tiny", "cut at \(count)") }
      guard case .needsMore(let wanted)? = try? parse(prefix, fileByteCount: 8192) else {
        Issue.record("cut at \(count) and enough")
        continue
      }
      #expect(wanted > count && wanted <= bytes.count)
    }
  }

  /// `bytes` with the checksum that belongs to them.
  private func repaired(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.count >= 4096 else { return bytes }
    var bytes = bytes
    let checksum = bytes.withUnsafeBytes {
      Checksum.of(UnsafeRawBufferPointer(rebasing: $0[..<4088]))
    }
    for place in 0..<8 { bytes[4088 + place] = UInt8(checksum >> UInt64(8 * place) & 0xFF) }
    return bytes
  }

  @Test func `Each field that cannot be is refused, at its offset`() {
    let cases: [(offset: Int, byteCount: Int, value: UInt64, reported: Int)] = [
      (8, 4, 2, 8), (12, 4, 1, 12), (24, 4, 3, 24), (24, 4, .max, 24), (28, 4, 0, 24),
      (28, 4, 1, 24), (28, 4, 65, 24), (28, 4, 2, 64), (28, 4, 4, 64), (32, 8, 0, 32),
      (32, 8, 4095, 32), (32, 8, (1 << 30) + 4096, 32), (32, 8, .max, 32), (40, 8, 0, 40),
      (40, 8, 4097, 40), (40, 8, 1 << 53, 40), (40, 8, .max, 40), (64, 1, 0, 64),
      (4087, 1, 7, 64),
    ]
    for (offset, byteCount, value, reported) in cases {
      var bytes = Self.member.encoded()
      for place in 0..<byteCount {
        bytes[offset + place] = UInt8(value >> UInt64(8 * place) & 0xFF)
      }
      do throws(FormatError) {
        _ = try parse(bytes)
        Issue.record("\(value) at \(offset) without its checksum")
      } catch { #expect(error.kind == (offset == 8 ? .unsupported : .checksumMismatch)) }
      do throws(FormatError) {
        let member = try parse(repaired(bytes))
        Issue.record("\(value) at \(offset): \(member)")
      } catch {
        #expect(error.kind == (offset < 16 ? .unsupported : .malformed), "\(error)")
        #expect(error.offset == reported, "\(error)")
      }
    }
  }

  @Test func `Damaged headers, half of them with a checksum that agrees`() {
    let fields = [(8, 4), (12, 4), (16, 8), (24, 4), (28, 4), (32, 8), (40, 8)].map {
      (offset: $0.0, byteCount: $0.1)
    }
    var generator = SeededGenerator(seed: 4)
    var outcomes = (read: 0, refused: 0)
    for round in 0..<20_000 {
      var bytes = Mutation.mutate(
        Self.member.encoded() + [UInt8](repeating: 1, count: 64), fields: fields, limit: 140,
        using: &generator)
      if round % 2 == 0 { bytes = repaired(bytes) }
      do throws(FormatError) {
        guard case .complete(let member) = try parse(bytes) else {
          Issue.record("round \(round): the whole file is not enough")
          continue
        }
        #expect((0..<member.memberCount).contains(member.index))
        #expect(StripeMember.countRange.contains(member.memberCount))
        #expect(StripeMember.unitByteCountRange.contains(member.unitByteCount))
        #expect(member.imageByteCount > 0)
        outcomes.read += 1
      } catch {
        #expect(error.path == "tiny" && !error.message.isEmpty, "round \(round)")
        outcomes.refused += 1
      }
    }
    #expect(outcomes.read > 100 && outcomes.refused > 10_000, "\(outcomes)")
  }

  @Test func `A member alone is no model`() throws {
    do throws(FormatError) {
      _ = try describe(Self.member.encoded())
      Issue.record("described")
    } catch { #expect(error.kind == .unrecognised && error.message.contains("striped")) }
  }
}
