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

  @Test(arguments: [ElementType.q8_0, .q4_0])
  func `Values come back within half a step`(type: ElementType) {
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<200 {
      let largest = Float.random(in: 0.001...100, using: &generator)
      let values = (0..<64).map { _ in Float.random(in: -largest...largest, using: &generator) }
      let found = dequantise(quantise(values, type), type, 64)
      for block in [0..<32, 32..<64] {
        let largest = values[block].map(\.magnitude).max() ?? 0
        // Half a step; the far end of Q4_0's range loses a whole one; scales are rounded to f16.
        let bound = largest * (type == .q8_0 ? 0.5 / 127 : 1.0 / 8) + largest * 0x1p-10
        for index in block { #expect((values[index] - found[index]).magnitude <= bound) }
      }
    }
  }

  @Test(arguments: [ElementType.q8_0, .q4_0])
  func `Zeros, tiny values and what is not finite do not trap`(type: ElementType) {
    let zeros = quantise(.init(repeating: 0, count: 32), type)
    #expect(dequantise(zeros, type, 32).allSatisfy { $0 == 0 })
    let extremes: [Float] = [
      .nan, .infinity, -.infinity, .greatestFiniteMagnitude, .leastNonzeroMagnitude,
    ]
    for value in extremes {
      var values = [Float](repeating: 1, count: 32)
      values[5] = value
      #expect(quantise(values, type).count == type.blockByteCount)
      #expect(quantise(.init(repeating: value, count: 32), type).count == type.blockByteCount)
    }
  }
}
