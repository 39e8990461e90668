import ModelFormat
import TensorBasics

extension FuzzTarget {
  /// Headers of members of striped images: their first 4088 bytes without trailing zeros, to which the
  /// checksum is added, so that what they say is believed.
  static let stripe = FuzzTarget(
    name: "stripe", inputByteLimit: 4096, dictionary: ["FLASHSTR", "/a", "/drives/0/model.bin"],
    seeds: { StripeTarget.seeds }, run: StripeTarget.run)
}

enum StripeTarget {
  static let seeds: [[UInt8]] = [
    ["/drives/a/model.bin", "/drives/ü/model.bin", "c"], ["a", "b"],
  ].map { paths in
    let member = StripeMember(
      setIdentifier: 0x0123_4567_89AB_CDEF, index: 1, unitByteCount: 1 << 16,
      imageByteCount: 40 << 12, paths: paths)
    let bytes = member.encoded().dropLast(8)
    return Array(bytes[...(bytes.lastIndex { $0 != 0 } ?? 0)])
  }

  static func run(_ input: UnsafeRawBufferPointer) throws(FuzzFinding) -> Bool {
    let checkedByteCount = StripeMember.headerByteCount - 8
    var bytes = Array(input.prefix(checkedByteCount))
    bytes.padWithZeros(to: checkedByteCount)
    bytes.appendLittleEndian(bytes.withUnsafeBytes(Checksum.of))
    // Bytes after the first 4088 cut the header short.
    let lost = max(0, input.count - checkedByteCount)
    guard let member = try parse(bytes.dropLast(lost)) else { return false }
    try require(
      StripeMember.countRange.contains(member.memberCount)
        && (0..<member.memberCount).contains(member.index)
        && StripeMember.unitByteCountRange.contains(member.unitByteCount)
        && member.imageByteCount > 0, "an impossible member: \(member)")
    // Paths that are no UTF-8 come out longer than they are in the file.
    guard StripeMember.canHold(paths: member.paths) else { return true }
    try require(try parse(member.encoded()[...]) == member, "not what was written")
    return true
  }

  private static func parse(_ bytes: ArraySlice<UInt8>) throws(FuzzFinding) -> StripeMember? {
    let outcome = bytes.withUnsafeBytes { bytes in
      Outcome { () throws(FormatError) in
        try StripeMember.parse(
          bytes, fileByteCount: StripeMember.headerByteCount, path: "fuzz")
      }
    }
    try outcome.check(
      prefixByteCount: bytes.count, fileByteCount: StripeMember.headerByteCount)
    return outcome.value
  }
}
