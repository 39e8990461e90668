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
  ///   - quantisation: `q8_0` or `q4_0` for float matrices whose rows are whole blocks, but not for
  ///     routers; nil keeps them.
  ///   - bundling: how experts are placed; nil = in bundles where the model has experts.
  /// - Throws: ``ConversionError`` where the source is an image already, describes no whole model, or
  ///   has no experts to put in bundles.
  public init(
    _ source: ModelSource, contents: [TensorContent]? = nil, quantisation: ElementType? = nil,
    bundling: Bundling? = nil
  ) throws(ConversionError) {
    let tensors = source.description.tensors
    if tensors.contains(where: { $0.layout == .interleaved }) {
      throw .notPossible("\(source.path) is a flash image already")
    }
    if bundling == .experts, source.description.configuration?.experts == nil {
      throw .notPossible("\(source.path) is a dense model; there are no experts to bundle")
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
      layout = try FlashImage.Layout(for: plan, bundling: bundling)
    } catch { throw .format(error) }
  }

  /// The type a tensor has in the image.
  private static func type(
    _ record: TensorRecord, _ content: TensorContent, _ quantisation: ElementType?
  ) -> ElementType {
    switch content {
    case .storedPlusOne, .values: return .f32
    case .stored, .parts: break
    }
    guard let quantisation, record.rowCount > 1, !record.type.isQuantised,
      !record.name.hasSuffix(".ffn_gate_inp.weight"),
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
    var index = 0
    while index < layout.description.tensors.count {
      // The tensors of a layer's bundles are written together, part by part.
      let count = layout.description.tensors[index].isBundled ? 3 : 1
      let tensors = Array(layout.description.tensors[index..<index + count])
      try write(tensors, reader, &writer, cancellation, progress)
      index += count
    }
    do {
      try writer.pad(to: layout.fileByteCount)
      try source.device.checkUnchanged()
    } catch { throw .io(error) }
    try writer.finish()
  }

  /// Writes tensors whose parts alternate; mostly one.
  private func write(
    _ tensors: [TensorRecord], _ reader: borrowing RowChunkReader, _ writer: inout ImageWriter,
    _ cancellation: CancellationFlag, _ progress: (_ byteCount: Int) -> Void
  ) throws(ConversionError) {
    if case .values(let values) = contents[tensors[0].name] {
      do { try writer.pad(to: tensors[0].offset) } catch { throw .io(error) }
      return try Self.append(values, to: &writer)
    }
    let sources = tensors.compactMap { table[$0.name] }
    guard sources.count == tensors.count else { return }
    var encoders: [TensorEncoder] = []
    for (source, target) in zip(sources, tensors) {
      encoders.append(
        try TensorEncoder(
          from: part(0, of: source), to: target.part(0),
          addsOne: contents[source.name] == .storedPlusOne))
    }
    var parts: [(source: TensorRecord, target: TensorRecord)] = []
    for expert in 0..<(tensors[0].stack?.count ?? 1) {
      for (source, target) in zip(sources, tensors) {
        parts.append((part(expert, of: source), target.part(expert)))
      }
    }
    try reader.read(parts.map(\.source)) { index, rows, address throws(ConversionError) in
      if cancellation.isRaised { throw .interrupted }
      do throws(BlockIOError) {
        if rows.lowerBound == 0 { try writer.pad(to: parts[index].target.offset) }
        try writer.append(
          encoders[index % tensors.count].encode(address, rowCount: rows.count))
      } catch { throw .io(error) }
      progress(writer.offset)
    }
  }

  /// Where the source holds one expert's matrix; `tensor` itself where it is plain.
  private func part(_ expert: Int, of tensor: TensorRecord) -> TensorRecord {
    if case .parts(let parts) = contents[tensor.name] { return parts[expert] }
    return tensor.part(expert)
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
