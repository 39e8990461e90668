import Kernels
import TensorBasics
import Testing

@Suite struct KeyValueBlockTests {
  /// A complete f16 block whose key channels and value positions differ in size and centre.
  private struct Case {
    let headDim: Int
    let keys: [Float]
    let values: [Float]
    let block: [UInt16]

    init(seed: UInt64) {
      var generator = SeededGenerator(seed: seed)
      let headDim = 16 * Int.random(in: 1...8, using: &generator)
      self.headDim = headDim
      func line() -> (centre: Float, width: Float) {
        let size = Float([0, 1e-6, 1, 30, 60000].randomElement(using: &generator) ?? 1)
        return (Float(generator.nextUnit() - 0.5) * size, size * Float(generator.nextUnit()) / 2)
      }
      func value(_ line: (centre: Float, width: Float)) -> Float {
        Float(Float16(line.centre + Float(generator.nextUnit() * 2 - 1) * line.width))
      }
      let channels = (0..<headDim).map { _ in line() }
      let keys = (0..<128 * headDim).map { value(channels[$0 % headDim]) }
      let rows = (0..<128).map { _ in line() }
      let values = (0..<128 * headDim).map { value(rows[$0 / headDim]) }
      var block = [UInt16](
        repeating: 0, count: KeyValueBlock.byteCount(headDim: headDim) / 2)
      for position in 0..<128 {
        block.withUnsafeMutableBytes { block in
          keys.withUnsafeBufferPointer { keys in
            values.withUnsafeBufferPointer { values in
              KeyValueBlock.store(
                key: keys.baseAddress! + position * headDim,
                value: values.baseAddress! + position * headDim, headDim: headDim,
                position: position, into: block.baseAddress!)
            }
          }
        }
      }
      self.keys = keys
      self.values = values
      self.block = block
    }

    func quantised(_ type: KeyValueType, _ set: InstructionSet) -> [UInt8] {
      var bytes = [UInt8](
        repeating: 0xAA, count: KeyValueBlock.byteCount(headDim: headDim, type: type))
      bytes.withUnsafeMutableBytes {
        KeyValueBlock.quantise(
          block, headDim: headDim, to: type, into: $0.baseAddress!, instructionSet: set)
      }
      return bytes
    }

    func expanded(_ bytes: [UInt8], _ type: KeyValueType, _ set: InstructionSet) -> [UInt16] {
      var result = [UInt16](repeating: 0x7E00, count: block.count)
      result.withUnsafeMutableBytes {
        KeyValueBlock.expand(
          bytes, headDim: headDim, from: type, into: $0.baseAddress!, instructionSet: set)
      }
      return result
    }

    /// A block's index of a key's or value's element.
    func index(position: Int, element: Int, isKey: Bool) -> Int {
      let group = position / 16 * 32 * headDim
      return isKey
        ? group + element * 16 + position % 16
        : group + 16 * headDim + position % 16 * headDim + element
    }
  }

  @Test func `A block takes as many bytes as its parts`() {
    #expect(KeyValueBlock.byteCount(headDim: 64) == 32768)
    #expect(KeyValueBlock.byteCount(headDim: 64, type: .q8) == 256 + 512 + 16384)
    #expect(KeyValueBlock.byteCount(headDim: 64, type: .q4) == 256 + 512 + 8192)
  }

  @Test(arguments: [KeyValueType.q8, .q4])
  func `Every instruction set writes and reads the scalar twin's bytes`(type: KeyValueType) {
    for seed in UInt64(0)..<20 {
      let block = Case(seed: seed)
      let bytes = block.quantised(type, .scalar)
      let expanded = block.expanded(bytes, type, .scalar)
      for set in MatrixProductTests.vectorSets {
        #expect(block.quantised(type, set) == bytes, "seed \(seed), \(set)")
        #expect(block.expanded(bytes, type, set) == expanded, "seed \(seed), \(set)")
      }
    }
  }

  @Test(arguments: [KeyValueType.q8, .q4])
  func `A value comes back within half a step`(type: KeyValueType) {
    let stepCount: Float = type == .q8 ? 254 : 15
    for seed in UInt64(0)..<20 {
      let block = Case(seed: seed)
      let length = block.headDim
      let expanded = block.expanded(block.quantised(type, .scalar), type, .scalar)
      func check(_ values: [Float], isKey: Bool, line: [(position: Int, element: Int)]) {
        let members = line.map { values[$0.position * length + $0.element] }
        let (low, high) = (members.min() ?? 0, members.max() ?? 0)
        // Centre, scale and result are rounded to f16, of eleven bits or of 2^-24 apart.
        let rounding = 2 * max(low.magnitude, high.magnitude) / 1024 + stepCount * 0x1p-24
        for (place, value) in zip(line, members) {
          let found = Float(
            Float16(
              bitPattern: expanded[
                block.index(position: place.position, element: place.element, isKey: isKey)]))
          #expect(
            (found - value).magnitude <= (high - low) / stepCount / 2 + rounding,
            "seed \(seed), \(place), key \(isKey): \(value) became \(found)")
        }
      }
      for element in 0..<length {
        check(block.keys, isKey: true, line: (0..<128).map { ($0, element) })
      }
      for position in 0..<128 {
        check(block.values, isKey: false, line: (0..<length).map { (position, $0) })
      }
    }
  }
}
