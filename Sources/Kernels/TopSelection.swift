/// Finds the largest of many values by radix selection; ties go to the lowest index.
package enum TopSelection {
  /// The indexes of the `count` largest of `values`, ascending.
  ///
  /// Takes four passes over the values, whatever they are; NaN counts as largest.
  ///
  /// - Parameters:
  ///   - values: [valueCount], 0 or greater.
  ///   - indexes: room for `count`, at most `valueCount`.
  package static func largest(
    _ count: Int, of values: UnsafePointer<Float>, valueCount: Int,
    into indexes: UnsafeMutablePointer<Int32>
  ) {
    precondition(count <= valueCount, "no more can be selected than there are")
    // Bits of floats that are not negative are ordered as the floats are.
    var (threshold, known, wanted): (UInt32, UInt32, Int) = (0, 0, count)
    withUnsafeTemporaryAllocation(of: Int.self, capacity: 256) { histogram in
      for shift in stride(from: UInt32(24), through: 0, by: -8) {
        histogram.initialize(repeating: 0)
        for index in 0..<valueCount {
          let bits = values[index].bitPattern
          if bits & known == threshold { histogram[Int(bits >> shift & 0xFF)] += 1 }
        }
        var digit = 255
        while digit > 0, histogram[digit] < wanted {
          wanted -= histogram[digit]
          digit -= 1
        }
        threshold |= UInt32(digit) << shift
        known |= 0xFF << shift
      }
    }
    var found = 0
    for index in 0..<valueCount where found < count {
      let bits = values[index].bitPattern
      if bits == threshold {
        guard wanted > 0 else { continue }
        wanted -= 1
      } else if bits < threshold {
        continue
      }
      indexes[found] = Int32(index)
      found += 1
    }
  }
}
