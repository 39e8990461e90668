/// A hash table over byte strings in a header: finds the index of a key, or that it is new.
///
/// Keys are compared as bytes, never as Swift strings, whose equality is canonical. The bytes stay in
/// the header, which every call is given anew; costs 16 to 24 bytes a key. Hashes are seeded per
/// process, so files cannot be made to collide.
struct ByteKeyIndex: Sendable {
  /// 1 + the key's index, 0 = free; a power of two entries, at most half of them taken.
  private var slots: [UInt32] = []
  private var keys: [Range<Int32>] = []

  var count: Int { keys.count }

  /// The index of the key equal to `key`: how many were inserted before it.
  func find(_ key: UnsafeRawBufferPointer, in header: UnsafeRawBufferPointer) -> Int? {
    guard !slots.isEmpty else { return nil }
    let slot = slots[freeOrEqualSlot(key, in: header)]
    return slot == 0 ? nil : Int(slot) - 1
  }

  /// Adds the key at `range` of `header`; false if an equal one is there.
  mutating func insert(_ range: Range<Int>, in header: UnsafeRawBufferPointer) -> Bool {
    if 2 * (count + 1) > slots.count { grow(header) }
    let place = freeOrEqualSlot(UnsafeRawBufferPointer(rebasing: header[range]), in: header)
    guard slots[place] == 0 else { return false }
    keys.append(Int32(range.lowerBound)..<Int32(range.upperBound))
    slots[place] = UInt32(count)
    return true
  }

  private mutating func grow(_ header: UnsafeRawBufferPointer) {
    slots = [UInt32](repeating: 0, count: max(16, 2 * slots.count))
    for index in 0..<count {
      slots[freeOrEqualSlot(bytes(index, in: header), in: header)] = UInt32(index + 1)
    }
  }

  private func bytes(_ index: Int, in header: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let range = keys[index]
    return UnsafeRawBufferPointer(rebasing: header[Int(range.lowerBound)..<Int(range.upperBound)])
  }

  private func freeOrEqualSlot(
    _ key: UnsafeRawBufferPointer, in header: UnsafeRawBufferPointer
  ) -> Int {
    var hasher = Hasher()
    hasher.combine(bytes: key)
    let mask = slots.count - 1
    var place = hasher.finalize() & mask
    while slots[place] != 0, !key.elementsEqual(bytes(Int(slots[place]) - 1, in: header)) {
      place = (place + 1) & mask
    }
    return place
  }
}
