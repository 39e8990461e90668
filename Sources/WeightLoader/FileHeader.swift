import BlockIO
package import ModelFormat
import TensorBasics

/// Reading of file headers whose length only parsing tells.
package enum FileHeader {
  /// Parses a file's header, reading as much of the file as that takes. The error of a file that is something
  /// else says what it is.
  ///
  /// - Throws: ``LoaderError/io(_:)``, ``LoaderError/format(_:)``.
  package static func parse<File>(
    _ path: String,
    _ parse: (
      _ prefix: UnsafeRawBufferPointer, _ fileByteCount: Int, _ path: String
    ) throws(FormatError) -> ParseProgress<File>
  ) throws(LoaderError) -> File {
    var prefixByteCount = ModelFile.firstReadByteCount
    while true {
      let prefix = try prefix(path, byteCount: prefixByteCount)
      do throws(FormatError) {
        switch try parse(prefix.bytes, prefix.fileByteCount, path) {
        case .complete(let file): return file
        case .needsMore(let byteCount): prefixByteCount = max(byteCount, 2 * prefixByteCount)
        }
      } catch { throw .format(FileDiagnosis.explaining(error, prefix.bytes, path: path)) }
    }
  }

  /// The first bytes of a file.
  static func prefix(_ path: String, byteCount: Int) throws(LoaderError) -> FilePrefix {
    do { return try FilePrefix(path: path, byteCount: byteCount) } catch { throw .io(error) }
  }
}
