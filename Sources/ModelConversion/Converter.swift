import BlockIO
import Kernels
public import ModelFormat
public import TensorBasics
public import WeightLoader

/// Writes a model as a flash image: rows are interleaved, quantised values stay bit for bit.
///
/// Memory is bounded by two chunks of a few MiB whatever the model's size; the image appears under
/// its name only when it is complete.
public struct Converter {
  private let source: ModelSource
  private let table: TensorTable
  private let contents: [String: TensorContent]
  /// Where everything will lie.
  public let layout: FlashImage.Layout

  /// Bytes the image will have.
  public var imageByteCount: Int { layout.fileByteCount }

  /// Plans the image of `source`.
  ///
  /// - Parameters:
  ///   - contents: where each of the source's tensors gets its elements; nil = all as stored.
  ///   - quantisation: `q8_0` or `q4_0` for float matrices whose rows are whole blocks; nil keeps them.
  /// - Throws: ``ConversionError`` where the source is an image already, or describes no whole model.
  public init(
    _ source: ModelSource, contents: [TensorContent]? = nil, quantisation: ElementType? = nil
  ) throws(ConversionError) {
    let tensors = source.description.tensors
    if tensors.contains(where: { $0.layout == .interleaved }) {
      throw .notPossible("\(source.path) is a flash image already")
    }
    self.source = source
    let contents = contents ?? tensors.map { _ in .stored }
    precondition(contents.count == tensors.count, "one content a tensor")
    self.contents = Dictionary(zip(tensors.map(\.name), contents)) { first, _ in first }
    var plan = source.description
    for (index, content) in contents.enumerated() {
      plan.tensors[index].type = Self.type(tensors[index], content, quantisation)
    }
    do throws(FormatError) {
      table = try TensorTable(tensors, path: source.path)
      layout = try FlashImage.Layout(for: plan)
    } catch { throw .format(error) }
  }

  /// The type a tensor has in the image.
  private static func type(
    _ record: TensorRecord, _ content: TensorContent, _ quantisation: ElementType?
  ) -> ElementType {
    if content != .stored { return .f32 }
    guard let quantisation, record.rowCount > 1, !record.type.isQuantised,
      record.columnCount % quantisation.blockElementCount == 0
    else { return record.type }
    return quantisation
  }

  /// Writes the image to `path`, replacing what is there only when it is complete.
  ///
  /// - Parameters:
  ///   - striping: the other files to cut the image over; nil writes one file.
  ///   - progress: called now and then with the bytes written so far.
  /// - Throws: ``ConversionError``; nothing at `path` or the other paths has changed then.
  public func write(
    to path: String, striping: Striping? = nil,
    cancellation: CancellationFlag = CancellationFlag(),
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(ConversionError) {
    var writer = try ImageWriter(path: path, striping: striping, layout: layout)
    let reader = try RowChunkReader(source: source)
    for tensor in layout.description.tensors {
      do { try writer.pad(to: tensor.offset) } catch { throw .io(error) }
      guard let record = table[tensor.name] else { continue }
      switch contents[tensor.name] ?? .stored {
      case .values(let values): try Self.append(values, to: &writer)
      case .stored, .storedPlusOne:
        let encoder = try TensorEncoder(
          from: record, to: tensor, addsOne: contents[tensor.name] == .storedPlusOne)
        try reader.read(record) { rows, address throws(ConversionError) in
          if cancellation.isRaised { throw .interrupted }
          do throws(BlockIOError) {
            try writer.append(encoder.encode(address, rowCount: rows.count))
          } catch { throw .io(error) }
          progress(writer.offset)
        }
      }
    }
    do {
      try writer.pad(to: layout.fileByteCount)
      try source.device.checkUnchanged()
    } catch { throw .io(error) }
    try writer.finish()
  }

  private static func append(
    _ values: [Float], to writer: inout ImageWriter
  ) throws(ConversionError) {
    var failure: BlockIOError?
    values.withUnsafeBytes { bytes in
      do throws(BlockIOError) { try writer.append(bytes) } catch { failure = error }
    }
    if let failure { throw .io(failure) }
  }
}
