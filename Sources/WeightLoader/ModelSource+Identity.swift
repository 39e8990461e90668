import BlockIO
public import ModelFormat
import TensorBasics

extension ModelSource {
  /// What tells the model from others (``ModelIdentity``): what an image states, or else computed from
  /// the first bytes of every tensor; 0 for a file without weights.
  ///
  /// - Parameter tensors: the tensors that lie in the files, where the description has others too.
  /// - Throws: ``LoaderError/io(_:)``; ``LoaderError/format(_:)`` where the file has become shorter.
  public func computeIdentity(of tensors: [TensorRecord]? = nil) throws(LoaderError) -> UInt64 {
    if description.identity != 0 || !description.extents.isEmpty { return description.identity }
    guard let configuration = description.configuration, !description.tensors.isEmpty else {
      return 0
    }
    let alignment = max(device.alignment, 1)
    let buffer: AlignedBuffer
    do {
      buffer = try AlignedBuffer(byteCount: ModelIdentity.tensorByteCount + 2 * alignment)
    } catch { throw .allocation(error) }
    var identity = ModelIdentity(configuration)
    for tensor in ModelIdentity.order(tensors ?? description.tensors) {
      let count = min(tensor.byteCount, ModelIdentity.tensorByteCount)
      let range = Extent(fileIndex: tensor.fileIndex, offset: tensor.offset, byteCount: count)
        .aligned(to: alignment)
      let start = tensor.offset - range.offset
      let found: Int
      do {
        found = try device.readNow(
          fileIndex: range.fileIndex, offset: range.offset,
          into: UnsafeMutableRawBufferPointer(start: buffer.address, count: range.byteCount))
      } catch { throw .io(error) }
      guard found >= start + count else {
        throw .format(
          FormatError(
            .truncated, at: range.offset + found, path: description.files[tensor.fileIndex],
            "the file ends inside tensor \"\(tensor.name)\"; it was complete when it was opened"))
      }
      identity.add(
        tensor, UnsafeRawBufferPointer(start: buffer.address + start, count: count))
    }
    return identity.finish()
  }
}
