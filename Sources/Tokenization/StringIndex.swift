import TensorBasics

/// Finds byte strings by content: open addressing over 32-bit string numbers.
///
/// Strings lie one after the other as in `PackedStrings`; a slot costs 4 bytes at a load of at most
/// three quarters. The hash is keyed at random, so that no file can be written to collide.
struct StringIndex: Sendable {
  /// Number of no string.
  static let none = UInt32.max

  private(set) var bytes: [UInt8]
  private(set) var offsets: [UInt32]
  private(set) var longestByteCount = 0
  private var slots: [UInt32]
  private var usedSlotCount = 0
  private let key: UInt64

  var count: Int { offsets.count - 1 }

  /// Takes over `strings` without entering them; ``enter(_:)`` makes them findable.
  init(_ strings: consuming PackedStrings, spareCapacity: Int = 0) {
    var generator = SystemRandomNumberGenerator()
    key = generator.next()
    bytes = strings.bytes
    offsets = strings.offsets
    slots = [UInt32](
      repeating: Self.none, count: Self.slotCount(for: offsets.count - 1 + spareCapacity))
  }

  private static func slotCount(for count: Int) -> Int { max(16, count + count / 3 + 1) }

  func byteCount(of number: UInt32) -> Int {
    Int(offsets[Int(number) + 1] - offsets[Int(number)])
  }

  subscript(number: UInt32) -> ArraySlice<UInt8> {
    bytes[Int(offsets[Int(number)])..<Int(offsets[Int(number) + 1])]
  }

  /// Makes string `number` findable; of equal strings the last one entered is found.
  mutating func enter(_ number: UInt32) {
    if (usedSlotCount + 1) * 4 > slots.count * 3 { grow() }
    longestByteCount = max(longestByteCount, byteCount(of: number))
    let slot = self[number].withUnsafeBufferPointer { self.slot(of: $0) }
    if slots[slot] == Self.none { usedSlotCount += 1 }
    slots[slot] = number
  }

  /// Adds and enters a string, returning its number.
  mutating func append(_ string: some Collection<UInt8>) -> UInt32 {
    bytes.append(contentsOf: string)
    offsets.append(UInt32(truncatingIfNeeded: bytes.count))
    let number = UInt32(count - 1)
    enter(number)
    return number
  }

  /// Number of the string entered with this content, or ``none``.
  func find(_ string: UnsafeBufferPointer<UInt8>) -> UInt32 {
    string.count > longestByteCount ? Self.none : slots[slot(of: string)]
  }

  /// The slot that holds `string`, or the empty one where it would go.
  private func slot(of string: UnsafeBufferPointer<UInt8>) -> Int {
    let hash = KeyedHash.hash(string, key: key)
    var slot = Int(hash.multipliedFullWidth(by: UInt64(slots.count)).high)
    while true {
      let number = slots[slot]
      if number == Self.none || isEqual(number, string) { return slot }
      slot += 1
      if slot == slots.count { slot = 0 }
    }
  }

  private func isEqual(_ number: UInt32, _ string: UnsafeBufferPointer<UInt8>) -> Bool {
    let start = Int(offsets[Int(number)])
    guard Int(offsets[Int(number) + 1]) - start == string.count else { return false }
    for index in 0..<string.count where bytes[start + index] != string[index] { return false }
    return true
  }

  private mutating func grow() {
    let old = slots
    slots = [UInt32](repeating: Self.none, count: Self.slotCount(for: usedSlotCount * 3 / 2 + 16))
    for number in old where number != Self.none {
      slots[self[number].withUnsafeBufferPointer { slot(of: $0) }] = number
    }
  }
}

/// Multiply-and-fold hashing (after wyhash) under a secret key.
enum KeyedHash {
  private static let multiplier: UInt64 = 0x9FB2_1C65_1E98_DF25

  static func mix(_ value: UInt64, key: UInt64) -> UInt64 {
    let first = (value ^ key).multipliedFullWidth(by: multiplier ^ key)
    let second = (first.high ^ first.low).multipliedFullWidth(by: multiplier)
    return second.high ^ second.low
  }

  static func hash(_ bytes: UnsafeBufferPointer<UInt8>, key: UInt64) -> UInt64 {
    let raw = UnsafeRawBufferPointer(bytes)
    var state = key ^ UInt64(bytes.count)
    var position = 0
    while position + 8 <= raw.count {
      state = mix(raw.loadUnaligned(fromByteOffset: position, as: UInt64.self), key: state)
      position += 8
    }
    var tail: UInt64 = 0
    while position < raw.count {
      tail = tail << 8 | UInt64(raw[position])
      position += 1
    }
    return mix(tail, key: state)
  }
}
