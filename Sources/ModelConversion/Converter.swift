import BlockIO
import Kernels
public import ModelFormat
public import TensorBasics
public import WeightLoader

/// Writes a model as a flash image: rows are interleaved, quantised values stay bit for bit.
///
/// Memory is bounded, by two chunks of a few MiB, or 64 MiB for bundles of neurons, whatever the model's
/// size; the image appears under
/// its name only when it is complete.
public struct Converter {
  private let source: ModelSource
  private let table: TensorTable
  private let selector: SelectorFile?
  private let selectorTable: TensorTable
  /// Float matrices that become quantised.
  public let quantisedTensorCount: Int
  /// Those that do not become the type asked for, in the order of the source's tensors.
  public let quantisationExceptions: [QuantisationException]
  /// Matrices that lie packed in the source, by what they are there and what they become.
  public let unpackedMatrices: [UnpackedMatrices]
  /// Where everything will lie.
  public let layout: FlashImage.Layout

  package var neuronBuffers = NeuronBuffers()

  /// Bytes the image will have.
  public var imageByteCount: Int { layout.fileByteCount }

  /// What float matrices can become.
  public static var quantisedTypes: [ElementType] { Quantisation.types }

  /// Plans the image of `source`.
  ///
  /// - Parameters:
  ///   - quantisation: what float matrices become, but for routers and positions; one of
  ///     ``quantisedTypes``. Where rows are no whole blocks of it, Q2_K, Q3_K and Q4_K become IQ4_NL, and Q5_K and Q6_K
  ///     become Q8_0; floats stay where rows are no multiple of 32. nil keeps all.
  ///   - bundling: what lies together; nil = each expert, where the model has experts.
  ///   - selector: what chooses neurons, for bundles of them.
  ///   - cancellation: stops the reading of weights for the source's identity.
  ///   - progress: is told how many bytes of weights were read for that.
  /// - Throws: ``ConversionError`` if the source is an image already, describes no whole model, or
  ///   has nothing to put in such bundles, or where the selector is another model's.
  public init(
    _ source: ModelSource, quantisation: ElementType? = nil, bundling: Bundling? = nil,
    selector: SelectorFile? = nil, cancellation: CancellationFlag = CancellationFlag(),
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(ConversionError) {
    let tensors = source.description.tensors
    if tensors.contains(where: { $0.layout == .interleaved }) {
      throw .notPossible("\(source.path) is a flash image already")
    }
    try Self.check(bundling, selector, source)
    if bundling == .experts, source.description.configuration?.experts == nil {
      throw .notPossible("\(source.path) is a dense model; there are no experts to bundle")
    }
    self.source = source
    var choice: QuantisationChoice?
    if let quantisation { choice = try QuantisationChoice(quantisation) }
    var plan = source.description
    for index in tensors.indices {
      plan.tensors[index].type = Self.type(
        tensors[index], plan.derivations[tensors[index].name], choice)
      plan.tensors[index].stack?.places = nil
    }
    plan.derivations = [:]
    plan.sourceIdentity = try Self.identity(of: source, cancellation, progress)
    if let selector, selector.selector.identity != plan.sourceIdentity {
      throw .notPossible(
        "predictor of another model, or made before identities covered all weights:"
          + " \(selector.source.path) has identity \(selector.selector.identity), the model"
          + " \(plan.sourceIdentity?.description ?? "none")")
    }
    let bundling = Self.resolved(bundling, source, &plan, choice)
    quantisedTensorCount = zip(plan.tensors, tensors).count {
      $0.type.isQuantised && !$1.type.isQuantised
    }
    quantisationExceptions = Self.exceptions(plan, bundling, source, choice)
    unpackedMatrices = UnpackedMatrices.groups(source.description, plan)
    self.selector = selector
    do throws(FormatError) {
      table = try TensorTable(tensors, path: source.path)
      selectorTable = try TensorTable(selector?.selector.tensors ?? [])
      layout = try FlashImage.Layout(for: plan, bundling: bundling, selector: selector?.selector)
    } catch { throw .format(error) }
  }

  /// The type a tensor has in the image.
  private static func type(
    _ record: TensorRecord, _ derivation: TensorDerivation?, _ choice: QuantisationChoice?
  ) -> ElementType {
    switch derivation {
    case .plusOne, .negatedPower, .values, .everyOther: return .f32
    case .packed, .transposed, nil: break
    }
    guard let choice, QuantisationChoice.concerns(record) else { return record.type }
    return choice.type(forLength: record.columnCount) ?? record.type
  }

  /// The float matrices that did not become the type asked for.
  private static func exceptions(
    _ plan: ModelDescription, _ bundling: Bundling?, _ source: ModelSource,
    _ choice: QuantisationChoice?
  ) -> [QuantisationException] {
    guard let choice else { return [] }
    return zip(source.description.tensors, plan.tensors).compactMap { record, planned in
      guard QuantisationChoice.concerns(record), planned.type != choice.asked,
        plan.derivations[record.name] == nil
      else { return nil }
      let isColumn = bundling == .singleNeurons && record.name.hasSuffix(".ffn_down.weight")
      return QuantisationException(
        tensorName: record.name, length: isColumn ? record.rowCount : record.columnCount,
        type: planned.type)
    }
  }

  /// Writes the image to `path`, replacing what is there only when it is complete.
  ///
  /// - Parameters:
  ///   - striping: the other files to cut the image over; nil writes one file.
  ///   - threadCount: how many threads quantise rows; the image's bytes are the same for any.
  ///   - progress: called now and then with the bytes written so far.
  /// - Returns: what the conversion changed.
  /// - Throws: ``ConversionError``; nothing at `path` or the other paths has changed then.
  @discardableResult
  public func write(
    to path: String, striping: Striping? = nil, threadCount: Int = 1,
    cancellation: CancellationFlag = CancellationFlag(),
    progress: (_ byteCount: Int) -> Void = { _ in }
  ) throws(ConversionError) -> ConversionReport {
    let checksum: RunningChecksum
    do { checksum = try RunningChecksum() } catch { throw .allocation(error) }
    var writer = try ImageWriter(
      path: path, striping: striping, layout: layout,
      inputs: [source.path] + source.files + (selector?.source.files ?? []), checksum: checksum)
    let pool = ThreadPool(threadCount: threadCount)
    let reader = try RowChunkReader(source: source)
    let selectorReader = try RowChunkReader(source: selector?.source ?? source)
    let pieceReader = try PieceReader(source: source)
    var squares = (error: 0.0, norm: 0.0)
    var index = 0
    while index < layout.description.tensors.count {
      // The tensors of a layer's bundles are written together, part by part.
      let count = layout.description.tensors[index].isBundled ? 3 : 1
      let tensors = Array(layout.description.tensors[index..<index + count])
      if selectorTable[tensors[0].name] != nil {
        try write(tensors, selectorReader, pool, &writer, cancellation, progress)
      } else {
        try write(tensors, reader, pool, &writer, cancellation, progress)
      }
      if let layer = tensors[0].selectedLayer {
        let sums = try writeNeurons(layer, pieceReader, pool, &writer, cancellation, progress)
        squares = (squares.error + sums.error, squares.norm + sums.norm)
      }
      index += count
    }
    do {
      try writer.pad(to: layout.fileByteCount)
      try source.device.checkUnchanged()
      try selector?.source.device.checkUnchanged()
    } catch { throw .io(error) }
    try writer.finish()
    return ConversionReport(
      columnError: squares.norm > 0 ? (squares.error / squares.norm).squareRoot() : nil)
  }

  /// Writes tensors whose parts alternate; mostly one.
  private func write(
    _ tensors: [TensorRecord], _ reader: borrowing RowChunkReader, _ pool: ThreadPool,
    _ writer: inout ImageWriter, _ cancellation: CancellationFlag,
    _ progress: (_ byteCount: Int) -> Void
  ) throws(ConversionError) {
    let derivations = source.description.derivations
    if case .values(let values) = derivations[tensors[0].name] {
      do { try writer.pad(to: tensors[0].offset) } catch { throw .io(error) }
      return try Self.append(values, to: &writer)
    }
    let sources = tensors.compactMap(origin)
    guard sources.count == tensors.count else { return }
    if case .transposed = derivations[sources[0].name] {
      return try writeTransposed(sources, tensors, pool, &writer, cancellation, progress)
    }
    var encoders: [TensorEncoder] = []
    for (source, target) in zip(sources, tensors) {
      encoders.append(
        try TensorEncoder(
          from: source.part(0), to: target.part(0), derivations[source.name], pool: pool))
    }
    var parts: [(source: TensorRecord, target: TensorRecord, packed: PackedRows?)] = []
    for expert in 0..<(tensors[0].stack?.count ?? 1) {
      for (origin, target) in zip(sources, tensors) {
        parts.append(
          (
            origin.part(expert), target.part(expert),
            PackedRows(origin, derivations[origin.name], part: expert, of: source)
          ))
      }
    }
    try reader.read(parts.map(\.source)) { index, rows, address throws(ConversionError) in
      if cancellation.isRaised { throw .interrupted }
      let encoded = try encoders[index % tensors.count].encode(
        address, firstRow: rows.lowerBound, rowCount: rows.count, packed: parts[index].packed)
      do throws(BlockIOError) {
        if rows.lowerBound == 0 { try writer.pad(to: parts[index].target.offset) }
        try writer.append(encoded)
      } catch { throw .io(error) }
      progress(writer.offset)
    }
  }

  /// Writes matrices that the source stores transposed, whose parts alternate.
  private func writeTransposed(
    _ sources: [TensorRecord], _ targets: [TensorRecord], _ pool: ThreadPool,
    _ writer: inout ImageWriter, _ cancellation: CancellationFlag,
    _ progress: (_ byteCount: Int) -> Void
  ) throws(ConversionError) {
    let reader = try ColumnReader(source, for: sources)
    var encoders: [TensorEncoder] = []
    for (source, target) in zip(sources, targets) {
      // The encoder sees rows as they would be stored if the matrix was not transposed.
      var rows = source.part(0)
      rows.byteCount = rows.rowCount * rows.columnCount * rows.type.blockByteCount
      encoders.append(
        try TensorEncoder(
          from: rows, to: target.part(0),
          rowCapacity: ColumnReader.rowsPerChunk(source, self.source),
          pool: pool))
    }
    for expert in 0..<(sources[0].stack?.count ?? 1) {
      for (index, target) in targets.enumerated() {
        try reader.read(sources[index], expert: expert) { rows, address throws(ConversionError) in
          if cancellation.isRaised { throw .interrupted }
          let encoded = try encoders[index].encode(
            address, firstRow: rows.lowerBound, rowCount: rows.count)
          do throws(BlockIOError) {
            if rows.lowerBound == 0 { try writer.pad(to: target.part(expert).offset) }
            try writer.append(encoded)
          } catch { throw .io(error) }
          progress(writer.offset)
        }
      }
    }
  }

  /// Where a tensor of the image comes from.
  private func origin(_ tensor: TensorRecord) -> TensorRecord? {
    if let layer = tensor.selectedLayer,
      let role = layout.description.neurons?.layers[layer].parts.last?.role
    {
      return table[role.tensorName(layer: layer)]
    }
    return table[tensor.name] ?? selectorTable[tensor.name]
  }

  /// Writes a layer's bundles of neurons; returns the sums of ``NeuronWriter/squares``.
  private func writeNeurons(
    _ layer: Int, _ reader: borrowing PieceReader, _ pool: ThreadPool,
    _ writer: inout ImageWriter, _ cancellation: CancellationFlag,
    _ progress: (_ byteCount: Int) -> Void
  ) throws(ConversionError) -> (error: Double, norm: Double) {
    guard let bundles = layout.description.neurons?.layers[layer] else { return (0, 0) }
    var sources: [NeuronBundles.Role: TensorRecord] = [:]
    for part in bundles.parts { sources[part.role] = table[part.role.tensorName(layer: layer)] }
    let neurons = try NeuronWriter(bundles, sources: sources, buffers: neuronBuffers, pool)
    try neurons.write(reader, to: &writer) { byteCount throws(ConversionError) in
      if cancellation.isRaised { throw .interrupted }
      progress(byteCount)
    }
    return neurons.squares
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
