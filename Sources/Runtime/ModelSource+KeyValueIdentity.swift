import BlockIO
import ModelFormat
import TensorBasics
import WeightLoader

extension ModelSource {
  /// Tells keys and values of this model from others': a hash of everything that decides them.
  ///
  /// Not the identity that an image states: that is its source's, whatever the image quantised.
  ///
  /// Of a model whose file has no checksums of its data a page in the middle of each tensor stands for it: two
  /// trainings of one model differ there.
  ///
  /// - Parameter selector: who names neurons; what it leaves out changes what comes behind.
  func keyValueIdentity(_ selector: NeuronSelector?) throws(RuntimeError) -> UInt64 {
    var hash = RunningChecksum()
    let structure = description.structureChecksum
    withUnsafeBytes(of: structure.littleEndian) { hash.update($0) }
    var name = selector?.rawValue ?? ""
    name.withUTF8 { hash.update(UnsafeRawBufferPointer($0)) }
    if description.extents.isEmpty {
      do throws(LoaderError) {
        try readMiddles { hash.update($0) }
      } catch { throw RuntimeError(error) }
    }
    return hash.finish()
  }

  /// Hands out the page in the middle of each tensor.
  private func readMiddles(_ use: (UnsafeRawBufferPointer) -> Void) throws(LoaderError) {
    let pageByteCount = max(AlignedBuffer.pageByteCount, device.alignment)
    let page: AlignedBuffer
    do { page = try AlignedBuffer(byteCount: pageByteCount) } catch { throw .allocation(error) }
    for tensor in description.tensors {
      let middle = tensor.byteSpan.lowerBound + tensor.byteSpan.count / 2
      let count: Int
      do {
        count = try device.readNow(
          fileIndex: tensor.fileIndex, offset: middle / pageByteCount * pageByteCount,
          into: page.bytes)
      } catch { throw .io(error) }
      use(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(page.bytes)[..<count]))
    }
  }
}
