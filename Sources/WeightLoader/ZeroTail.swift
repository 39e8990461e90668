import BlockIO
import ModelFormat
import TensorBasics

/// Files that end with zeros where weights should be.
///
/// Download tools reserve a file's whole length before its bytes come; one that was interrupted leaves a file
/// that looks complete, and whose model answers nonsense.
enum ZeroTail {
  /// Places that are looked at, and bytes of each.
  private static let sampleCount = 16
  private static let sampleByteCount = 64

  /// Throws if nothing but zeros is found over the last two matrices of a file, or over the only one.
  ///
  /// - Throws: ``LoaderError/format(_:)``, ``LoaderError/io(_:)``.
  static func check(_ description: ModelDescription) throws(LoaderError) {
    guard description.extents.isEmpty else { return }
    var matrices = [[TensorRecord]](repeating: [], count: description.files.count)
    for tensor in description.storedTensors where tensor.rowCount > 1 {
      matrices[tensor.fileIndex].append(tensor)
    }
    for (path, tensors) in zip(description.files, matrices) {
      let last = tensors.sorted { $0.offset < $1.offset }.suffix(2)
      guard let first = last.first, try isZero(path, last) else { continue }
      throw .format(
        FormatError(
          .truncated, at: first.offset, path: path,
          "nothing but zeros from here on, where weights should be: room was reserved for a download that did "
            + "not finish; finish it, or download the file again"))
    }
  }

  private static func isZero(
    _ path: String, _ tensors: ArraySlice<TensorRecord>
  ) throws(LoaderError) -> Bool {
    var bytes = [UInt8](repeating: 0, count: sampleByteCount)
    for tensor in tensors {
      for index in 0..<sampleCount {
        let last = max(0, tensor.byteCount - sampleByteCount)
        let offset = tensor.offset + last * index / (sampleCount - 1)
        let count = min(sampleByteCount, tensor.byteCount)
        var failure: BlockIOError?
        bytes.withUnsafeMutableBytes { bytes in
          do throws(BlockIOError) {
            try FileRange.read(
              path: path, offset: offset,
              into: UnsafeMutableRawBufferPointer(rebasing: bytes[..<count]))
          } catch { failure = error }
        }
        if let failure { throw .io(failure) }
        if bytes.contains(where: { $0 != 0 }) { return false }
      }
    }
    return true
  }
}
