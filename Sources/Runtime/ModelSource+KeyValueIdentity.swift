import KVCache
import ModelFormat
import TensorBasics
import WeightLoader

extension ModelSource {
  /// Of this program's arithmetic: raised by whatever changes a bit of any key or value.
  private static let arithmeticVersion: UInt64 = 1

  /// Everything but the weights that decides keys and values, as a number.
  ///
  /// Threads, memory, back end and instruction set change no bit (`docs/decisions/0001`), and the type of
  /// elements is stated beside it.
  ///
  /// - Parameter selector: what chooses neurons; what it leaves out changes everything after.
  func keyValueGraph(_ selector: NeuronSelector?) -> UInt64 {
    var bytes: [UInt8] = []
    for number in [Self.arithmeticVersion, description.graphChecksum] {
      withUnsafeBytes(of: number.littleEndian) { bytes += $0 }
    }
    bytes += (selector?.rawValue ?? "").utf8
    return bytes.withUnsafeBytes(Checksum.of)
  }
}

extension KeyValueOrigin.Model {
  init(_ reference: ModelReferences.Reference) {
    switch reference {
    case .content(let identity): self = .content(identity.number)
    case .files(let number): self = .file(number)
    }
  }
}
