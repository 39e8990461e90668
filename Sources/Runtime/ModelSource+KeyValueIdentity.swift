import KVCache
import ModelFormat
import TensorBasics
import WeightLoader

extension ModelSource {
  /// Of this program's arithmetic: raised by whatever changes a bit of any key or value.
  private static let arithmeticVersion: UInt64 = 1
  /// Of the order in which states lie in memory.
  private static let stateLayoutVersion: UInt8 = 1

  /// Everything but the weights that decides keys and values, as a number.
  ///
  /// Threads, memory, back end and instruction set change no bit (`docs/decisions/0001`), and the type of
  /// elements is stated beside it.
  ///
  /// - Parameters:
  ///   - selector: what chooses neurons; what it leaves out changes everything after.
  ///   - contextLength: what RoPE's frequencies are chosen for, of a model that has two sets.
  func keyValueGraph(_ selector: NeuronSelector?, contextLength: Int) -> UInt64 {
    var bytes: [UInt8] = []
    for number in [Self.arithmeticVersion, description.graphChecksum] {
      withUnsafeBytes(of: number.littleEndian) { bytes += $0 }
    }
    bytes += (selector?.rawValue ?? "").utf8
    if let configuration = description.configuration, configuration.shortContextLength != nil {
      bytes += configuration.ropeFactorsName(contextLength: contextLength).utf8
    }
    if description.configuration?.scans.isEmpty == false {
      bytes.append(Self.stateLayoutVersion)
    }
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
