import Kernels
import TensorBasics
import Testing

@Suite struct QuantisationTests {
  private func quantise(_ values: [Float], _ type: ElementType) -> [UInt8] {
    let byteCount = values.count / type.blockElementCount * type.blockByteCount
    var bytes = [UInt8](repeating: 0xEE, count: byteCount)
    bytes.withUnsafeMutableBytes { output in
      values.withUnsafeBufferPointer { input in
        Quantisation.row(
          input.baseAddress!, type: type, columnCount: values.count, into: output.baseAddress!)
      }
    }
    return bytes
  }

  private func dequantise(_ bytes: [UInt8], _ type: ElementType, _ count: Int) -> [Float] {
    var values = [Float](repeating: .nan, count: count)
    values.withUnsafeMutableBufferPointer { output in
      bytes.withUnsafeBytes { input in
        Dequantisation.row(
          input.baseAddress!, type: type, columnCount: count, into: output.baseAddress!)
      }
    }
    return values
  }

  @Test func `Q8_0 of 127 quarters is exact, halves are rounded away from zero`() {
    var values = (0..<32).map { Float($0 - 16) / 4 }
    (values[0], values[1], values[2]) = (-31.75, 0.125, -0.125)
    let bytes = quantise(values, .q8_0)
    // The scale 0.25 is 0x3400 in f16.
    #expect(bytes[0] == 0x00 && bytes[1] == 0x34)
    let quants = bytes[2...].map { Int8(bitPattern: $0) }
    #expect(quants[0] == -127 && quants[1] == 1 && quants[2] == -1)
    #expect(quants[3...].elementsEqual((3..<32).map { Int8($0 - 16) }))
  }

  /// Quantised and read back.
  private func again(_ values: [Float], _ type: ElementType) -> [Float] {
    dequantise(quantise(values, type), type, values.count)
  }

  private func squaredError(_ values: [Float], _ others: [Float]) -> Double {
    zip(values, others).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
  }

  @Test func `Q4_0 scales by the value of largest magnitude, with its sign`() {
    var values = (0..<32).map { Float($0 % 8) / 2 }
    values[31] = 4  // scale -0.5: quant = 8 - 2x
    let bytes = quantise(values, .q4_0)
    #expect(bytes[0] == 0x00 && bytes[1] == 0xB8)
    for index in 0..<16 {
      #expect(bytes[2 + index] & 15 == UInt8(8 - index % 8))
      #expect(bytes[2 + index] >> 4 == (index == 15 ? 0 : UInt8(8 - index % 8)))
    }
    #expect(dequantise(bytes, .q4_0, 32) == values)
  }

  /// The farthest that a value can be from its nearest, per unit of the span that its block's quants cover, where scales are
  /// not rounded: half a step.
  private static let halfSteps: [(type: ElementType, share: Float)] = [
    (.q8_0, 0.5 / 254), (.q6_K, 0.5 / 63), (.q5_K, 0.5 / 31), (.q4_K, 0.5 / 15), (.q4_0, 0.5 / 15),
    (.q3_K, 0.5 / 7), (.q2_K, 0.5 / 3),
  ]

  @Test(arguments: Quantisation.types)
  func `Evenly spread values lose no more than half a step on average`(type: ElementType) throws {
    var generator = SeededGenerator(seed: 5)
    let share = try #require(
      Self.halfSteps.first { $0.type == type }?.share ?? (type == .mxfp4 ? 0.5 / 6 : 0.5 / 10))
    for _ in 0..<40 {
      let largest = Float.random(in: 0.001...100, using: &generator)
      let values = (0..<256).map { _ in Float.random(in: -largest...largest, using: &generator) }
      let found = again(values, type)
      let mean = (squaredError(values, found) / 256).squareRoot()
      // The mean of evenly spread remainders is a step over the root of 12; rounded factors, weights
      // and the largest values, which are not within the span, take the rest of half a step.
      #expect(Float(mean) <= 2 * largest * share, "\(type.name)")
      // No value loses more than the whole range of its signs allows.
      for (value, other) in zip(values, found) {
        #expect((value - other).magnitude <= 6 * largest * share + largest * 0x1p-10)
      }
    }
  }

  /// A scale that only makes the extreme value fit, without search.
  private func plainError(_ values: [Float], _ type: ElementType) -> Double {
    let isAffine = [.q2_K, .q4_K, .q5_K].contains(type)
    let part =
      type == .q4_0 || type == .iq4_NL || type == .mxfp4 ? 32 : isAffine && type != .q2_K ? 32 : 16
    let levels: Float =
      switch type {
      case .q2_K: 3
      case .q3_K: 4
      case .q4_K: 15
      case .q5_K: 31
      case .q6_K: 32
      default: 8
      }
    var found = values
    for start in stride(from: 0, to: values.count, by: part) {
      let block = values[start..<start + part]
      var lowest: Float = 0
      var scale = (block.max { $0.magnitude < $1.magnitude } ?? 0) / -levels
      if isAffine {
        lowest = min(0, block.min() ?? 0)
        scale = (max(0, block.max() ?? 0) - lowest) / levels
      }
      for index in start..<start + part where scale != 0 {
        let q = ((values[index] - lowest) / scale).rounded()
        let limited = isAffine ? min(levels, max(0, q)) : min(levels - 1, max(-levels, q))
        found[index] = limited * scale + lowest
      }
    }
    return squaredError(values, found)
  }

  /// Blocks as weights are: sums of evenly spread numbers, of other sizes from row to row.
  private func weights(_ count: Int, _ generator: inout SeededGenerator) -> [Float] {
    (0..<count).map { _ in
      (0..<6).reduce(0) { sum, _ in sum + Float.random(in: -0.02...0.02, using: &generator) }
    }
  }

  /// The plain scales are not even rounded, and the factors that parts share in a block are.
  @Test(arguments: [ElementType.q6_K, .q5_K, .q4_K, .q3_K, .q2_K, .iq4_NL])
  func `The search loses less than scales that make the extreme fit`(type: ElementType) {
    var generator = SeededGenerator(seed: 11)
    let values = weights(256 * 64, &generator)
    let found = squaredError(values, again(values, type))
    #expect(found < plainError(values, type) * (type == .q6_K ? 1.02 : 1), "\(type.name)")
  }

  @Test(arguments: Quantisation.types)
  func `Values that a type can hold come back`(type: ElementType) {
    // Steps of a quarter, with the ends of the range in each part.
    let (lowest, highest): (Int, Int) =
      switch type {
      case .q2_K: (0, 3)
      case .q3_K: (-4, 3)
      case .q4_K: (0, 15)
      case .q5_K: (0, 31)
      case .q6_K: (-32, 31)
      case .q8_0: (-127, 127)
      case .mxfp4: (-4, 4)
      default: (-8, 7)
      }
    var values = (0..<256).map { index in
      index % 16 == 0 ? Float(lowest) / 4 : Float(lowest + index % (highest - lowest + 1)) / 4
    }
    for start in stride(from: 1, to: 256, by: 16) { values[start] = Float(highest) / 4 }
    if type == .iq4_NL {
      let levels: [Float] = [
        -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
      ]
      values = (0..<256).map { levels[$0 % 16] / 4 }
    }
    // A factor of 63 makes of the scale a number that 16 bits round.
    let share: Float = [.q2_K, .q4_K, .q5_K].contains(type) ? 0x1p-10 : 0
    for (value, other) in zip(values, again(values, type)) {
      #expect((value - other).magnitude <= share * value.magnitude, "\(type.name)")
    }
  }

  @Test(arguments: Quantisation.types)
  func `One huge value, zeros and denormals stay what they are, about`(type: ElementType) {
    var generator = SeededGenerator(seed: 3)
    let length = type.blockElementCount
    #expect(again(.init(repeating: 0, count: length), type).allSatisfy { $0 == 0 })
    // One value far above the others: it comes back, and they do not turn into anything large.
    for place in [0, 7, length - 1] {
      for huge: Float in [30000, -30000] {
        var values = weights(length, &generator)
        values[place] = huge
        let found = again(values, type)
        #expect((found[place] - huge).magnitude <= 30000 * (type == .mxfp4 ? 0.2 : 0.02))
        for index in 0..<length where index != place {
          #expect(found[index].magnitude <= 30000 * 0.3, "\(type.name)")
        }
      }
    }
    // Below what a scale of 16 bits can say all becomes zero; MXFP4 goes on for longer.
    for tiny: Float in [.leastNonzeroMagnitude, .leastNormalMagnitude, 1e-30] {
      let values = (0..<length).map { $0 % 3 == 0 ? tiny : -tiny / 2 }
      for (value, other) in zip(values, again(values, type)) {
        #expect((value - other).magnitude <= tiny, "\(type.name)")
      }
    }
    // A block of equal values.
    for value: Float in [0.37, -0.37] {
      for other in again(.init(repeating: value, count: length), type) {
        #expect((other - value).magnitude <= 0.37 * (type == .mxfp4 ? 0.2 : 0.02), "\(type.name)")
      }
    }
  }

  @Test(arguments: Quantisation.types)
  func `What is not finite does not trap`(type: ElementType) {
    let extremes: [Float] = [
      .nan, .infinity, -.infinity, .greatestFiniteMagnitude, -.greatestFiniteMagnitude,
    ]
    for value in extremes {
      for place in [0, 5, type.blockElementCount - 1] {
        var values = [Float](repeating: 1, count: type.blockElementCount)
        values[place] = value
        #expect(quantise(values, type).count == type.blockByteCount)
      }
      let bytes = quantise(.init(repeating: value, count: type.blockElementCount), type)
      #expect(bytes.count == type.blockByteCount)
    }
  }

  /// Whatever the order of magnitude: the scales found are finite wherever 16 bits can hold them.
  @Test(arguments: Quantisation.types)
  func `Blocks are valid for weights of any size`(type: ElementType) {
    var generator = SeededGenerator(seed: 21)
    for exponent in -40...14 {
      let values = weights(2 * type.blockElementCount, &generator).map {
        $0 * Float(sign: .plus, exponent: exponent, significand: 1)
      }
      let bytes = quantise(values, type)
      bytes.withUnsafeBytes {
        let place = WeightValues.firstNotFinite(
          $0.baseAddress!, type: type, columnCount: values.count, rowCount: 1)
        #expect(place == nil)
      }
    }
  }
}
