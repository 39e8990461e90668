/// What stands for long expected results in tables of tests.
public enum Fingerprint {
  /// FNV-1a of 64 bits, in hexadecimal.
  public static func of(_ bytes: some Sequence<UInt8>) -> String {
    let value = bytes.reduce(0xCBF2_9CE4_8422_2325 as UInt64) {
      ($0 ^ UInt64($1)) &* 0x100_0000_01B3
    }
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
