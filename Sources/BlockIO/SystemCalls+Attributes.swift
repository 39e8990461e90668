import CLinuxURing
import TensorBasics

// Apart from the others, as the Glibc module leaves them out.
extension SystemCalls {
  /// Writes an extended attribute of a file, which need not be open for writing.
  package static func setAttribute(
    _ descriptor: Int32, _ name: String, _ value: [UInt8]
  ) -> Int32 {
    whole(.adjust) { fsetxattr(descriptor, name, value, value.count, 0) }
  }

  /// Reads an extended attribute of a file.
  ///
  /// - Returns: how many bytes it has, or the negated error number, also where `bytes` has no room for them.
  package static func attribute(
    _ descriptor: Int32, _ name: String, into bytes: UnsafeMutableRawBufferPointer
  ) -> Int {
    whole(.inspect) { fgetxattr(descriptor, name, bytes.baseAddress, bytes.count) }
  }
}
