/// A set of Unicode scalars: what a class of characters stands for.
struct ScalarSet: Equatable, Sendable {
  /// Ascending, neither touching nor empty.
  private(set) var ranges: [ClosedRange<UInt32>] = []

  /// All that UTF-8 can encode.
  static let all = ScalarSet([0...0xD7FF, 0xE000...0x10FFFF])

  init(_ ranges: [ClosedRange<UInt32>] = []) {
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = self.ranges.last, last.upperBound + 1 >= range.lowerBound {
        self.ranges[self.ranges.count - 1] =
          last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        self.ranges.append(range)
      }
    }
  }

  init(_ scalars: some Sequence<Unicode.Scalar>) {
    self.init(scalars.map { $0.value...$0.value })
  }

  func union(_ other: ScalarSet) -> ScalarSet { ScalarSet(ranges + other.ranges) }

  /// All scalars that are not in it.
  var complement: ScalarSet {
    var result: [ClosedRange<UInt32>] = []
    for whole in Self.all.ranges {
      var next = whole.lowerBound
      for range in ranges where range.upperBound >= next && range.lowerBound <= whole.upperBound {
        if range.lowerBound > next { result.append(next...(range.lowerBound - 1)) }
        next = range.upperBound + 1
      }
      if next <= whole.upperBound { result.append(next...whole.upperBound) }
    }
    return ScalarSet(result)
  }

  /// Without surrogates, which no UTF-8 encodes.
  var encodable: ScalarSet { complement.complement }

  /// The sequences of ranges of bytes that encode its scalars.
  var byteSequences: [[ClosedRange<UInt8>]] {
    var result: [[ClosedRange<UInt8>]] = []
    for range in encodable.ranges {
      // Pieces in which all scalars have as many bytes.
      var low = range.lowerBound
      for last: UInt32 in [0x7F, 0x7FF, 0xFFFF, 0x10FFFF]
      where low <= last && low <= range.upperBound {
        Self.split(low, min(last, range.upperBound), into: &result)
        low = last + 1
      }
    }
    return result
  }

  /// Cuts a range into those whose continuation bytes are independent of each other.
  private static func split(
    _ low: UInt32, _ high: UInt32, into result: inout [[ClosedRange<UInt8>]]
  ) {
    let (first, last) = (encode(low), encode(high))
    for tail in stride(from: first.count - 1, to: 0, by: -1) {
      let mask = UInt32(1) << (6 * tail) - 1
      guard low & ~mask != high & ~mask else { continue }
      if low & mask != 0 {
        split(low, low | mask, into: &result)
        return split((low | mask) + 1, high, into: &result)
      }
      if high & mask != mask {
        split(low, (high & ~mask) - 1, into: &result)
        return split(high & ~mask, high, into: &result)
      }
    }
    result.append(zip(first, last).map { $0...$1 })
  }

  private static func encode(_ value: UInt32) -> [UInt8] {
    func tail(_ shift: UInt32) -> UInt8 { UInt8(0x80 | (value >> shift & 0x3F)) }
    return switch value {
    case ..<0x80: [UInt8(value)]
    case ..<0x800: [UInt8(0xC0 | value >> 6), tail(0)]
    case ..<0x10000: [UInt8(0xE0 | value >> 12), tail(6), tail(0)]
    default: [UInt8(0xF0 | value >> 18), tail(12), tail(6), tail(0)]
    }
  }
}
