import ModelFormat
import TensorBasics

/// Cuts an image in memory in stripes, as `docs/format.md`, section 9 says, number by number and
/// independently of the converter it checks.
public enum StripeBuilder {
  /// The bytes of each member of `image`.
  public static func members(
    of image: [UInt8], unitByteCount: Int, paths: [String]
  ) -> [[UInt8]] {
    var members = paths.indices.map { header(image, $0, unitByteCount, paths) }
    for (number, byte) in image.enumerated() {
      members[number / unitByteCount % paths.count].append(byte)
    }
    return members
  }

  private static func header(
    _ image: [UInt8], _ index: Int, _ unitByteCount: Int, _ paths: [String]
  ) -> [UInt8] {
    var bytes = Array("FLASHSTR".utf8)
    func append(_ value: UInt64, _ byteCount: Int) {
      for place in 0..<byteCount { bytes.append(UInt8(value >> UInt64(8 * place) & 0xFF)) }
    }
    append(1, 4)
    append(0, 4)
    append(checksum(Array(image[..<64])), 8)
    append(UInt64(index), 4)
    append(UInt64(paths.count), 4)
    append(UInt64(unitByteCount), 8)
    append(UInt64(image.count), 8)
    append(0, 8)
    append(0, 8)
    for path in paths { bytes += Array(path.utf8) + [0] }
    bytes += [UInt8](repeating: 0, count: 4088 - bytes.count)
    append(checksum(bytes), 8)
    return bytes
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt64 {
    bytes.withUnsafeBytes { Checksum.of($0) }
  }
}
