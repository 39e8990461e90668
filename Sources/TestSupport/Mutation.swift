public import TensorBasics

/// Seeded damage to a file's bytes, for tests with hostile input.
public enum Mutation {
  /// Values at which length and offset arithmetic breaks.
  private static let extremes: [UInt64] = [
    0, 1, 2, 7, 8, 31, 63, 64, 255, 256, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
    0x1_0000_0000, 1 << 40, 1 << 60, 0x7FFF_FFFF_FFFF_FFFF, 1 << 63, .max - 1, .max,
  ]

  /// `bytes` with one to four changes: flipped bits, changed bytes, removed or inserted ranges,
  /// a truncation, or an extreme number in an integer field.
  ///
  /// - Parameters:
  ///   - fields: Offsets and widths of integers worth breaking; may be empty.
  ///   - limit: Only bytes below it are changed (a header), but truncation may fall anywhere.
  public static func mutate(
    _ bytes: [UInt8], fields: [(offset: Int, byteCount: Int)] = [], limit: Int? = nil,
    using generator: inout SeededGenerator
  ) -> [UInt8] {
    var bytes = bytes
    for _ in 0..<Int.random(in: 1...4, using: &generator) {
      apply(&bytes, fields, limit ?? bytes.count, &generator)
    }
    return bytes
  }

  private static func apply(
    _ bytes: inout [UInt8], _ fields: [(offset: Int, byteCount: Int)], _ limit: Int,
    _ generator: inout SeededGenerator
  ) {
    let end = min(limit, bytes.count)
    guard end > 0 else { return }
    let place = Int.random(in: 0..<end, using: &generator)
    switch Int.random(in: 0..<8, using: &generator) {
    case 0: bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
    case 1: bytes[place] = UInt8.random(in: .min ... .max, using: &generator)
    case 2:
      bytes.removeSubrange(place..<min(end, place + Int.random(in: 1...16, using: &generator)))
    case 3:
      let count = Int.random(in: 1...16, using: &generator)
      bytes.insert(contentsOf: (0..<count).map { _ in UInt8(generator.next() & 0xFF) }, at: place)
    case 4: bytes.removeSubrange(Int.random(in: 0..<bytes.count, using: &generator)...)
    case 5:
      store(extremes.randomElement(using: &generator) ?? 0, at: place, count: 8, &bytes)
    default:
      guard let field = fields.randomElement(using: &generator) else { return }
      let value =
        Bool.random(using: &generator)
        ? extremes.randomElement(using: &generator) ?? 0 : generator.next() & 0x3F
      store(value, at: field.offset, count: field.byteCount, &bytes)
    }
  }

  private static func store(_ value: UInt64, at offset: Int, count: Int, _ bytes: inout [UInt8]) {
    for index in 0..<count where offset + index < bytes.count {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
    }
  }
}
