import Kernels
import ModelFormat
import Synchronization
import TensorBasics
import WeightLoader

/// One product of a sweep: a matrix of the model and where its result goes.
struct LinearTask {
  /// Tensor number.
  var tensor: Int
  /// [tokenCount, outputStride], of which the matrix's rows are written.
  var output: UnsafeMutablePointer<Float>
  var outputStride: Int
}

/// One product with a matrix of a bundle that is in memory.
struct BundleProduct {
  var family: Int
  var bundle: Int
  var part: Int
  var activations: Activations
  /// As ``LinearTask``.
  var output: UnsafeMutablePointer<Float>
  var outputStride: Int
}

/// Multiplies activations with matrices piece by piece, as the stream delivers them.
///
/// Pieces that are in memory together become one parallel region; while the drive is behind, each
/// piece is one. Rows are independent, so neither pieces nor threads change a bit of the result.
///
/// What the coordinator does between two regions is done for each piece and not for each grain: workers
/// spin for the next region meanwhile, and waking them from sleep costs more than many a region takes.
final class LinearExecutor: ParallelRegion {
  private let stream: WeightStream
  /// The stream's, which workers look at for every grain: asked of the stream, it would be retained, by all of them at
  /// once.
  private let cancellation: CancellationFlag
  private let pool: ThreadPool
  private let clock: StepClock
  /// What products need of a tensor; a record with its name would be retained for every grain.
  private struct Matrix {
    var rows: MatrixRows
    var byteCount: Int
    var rowCount: Int
    /// Sixteen rows take as many bytes in the file as in a row group.
    var hasWholeGroups: Bool
  }
  private let matrices: [Matrix]
  private let families: [BundleFamily]
  /// As ``DecoderWeights/factors``, whose memory it is.
  private let factors: [UnsafePointer<Float>?]
  /// A piece, or a whole tensor, in a region: grains of `grainGroupCount` row groups, of which a worker
  /// takes one at a time.
  private struct RowSpan {
    var origin: Origin
    var activations: Activations
    var operand: MatrixOperand
    var grainGroupCount = 0
    /// Index of its first grain in the region.
    var firstGrain = 0
    /// Where its rows go, as ``LinearTask``.
    var output: UnsafeMutablePointer<Float>
    var outputStride: Int
    /// What the sums are multiplied by, once each is whole; 1 = they stay.
    var factor: Float
    /// The workers leave the interleaved rows in place of the row-major ones: all of them, or what is
    /// left in memory would be neither layout.
    var interleavesInPlace: Bool

    var groupCount: Int { RowGroup.groupCount(rows: operand.rowCount) }
  }
  /// Where a span's rows come from, for what is to be done with them afterwards.
  private enum Origin {
    /// To be released.
    case piece(Int)
    /// A whole tensor that stays in memory.
    case resident
    case bundle(family: Int, bundle: Int, part: Int)
  }
  private let spans: UnsafeMutableBufferPointer<RowSpan>
  private var spanCount = 0
  private var grainCount = 0
  /// Products of the region were left out, because the caller asked to stop.
  private let isCutShort = Atomic(false)
  private let tasks: UnsafeMutableBufferPointer<LinearTask>
  private let scratch: AlignedBuffer
  private let scratchByteCount: Int

  /// Weights in a grain, about: a share of the region, so that workers end together, and short.
  private var grainByteCount = 0
  private static let grainsPerWorker = 16
  private static let longestGrainByteCount = 128 << 10
  private static let spanCapacity = 256
  private static let longGrainTokenCount = 24

  /// - Parameter factors: as ``DecoderWeights/factors``; they must outlive the executor.
  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(
    stream: WeightStream, families: [BundleFamily], factors: [UnsafePointer<Float>?],
    pool: ThreadPool, clock: StepClock
  ) throws(RuntimeError) {
    self.stream = stream
    cancellation = stream.cancellation
    self.pool = pool
    self.clock = clock
    matrices = stream.source.description.tensors.map {
      let rows = MatrixRows($0.type, columnCount: $0.columnCount)
      return Matrix(
        rows: rows, byteCount: $0.byteCount, rowCount: $0.rowCount,
        hasWholeGroups: $0.byteCount / $0.rowCount * RowGroup.rowCount == rows.groupByteCount)
    }
    self.families = families
    self.factors = factors
    scratchByteCount = Self.scratchByteCount(
      stream.source.description, stream.plan.piecesOfTensor)
    do {
      scratch = try AlignedBuffer(byteCount: max(1, scratchByteCount * pool.threadCount))
    } catch { throw .allocation(error) }
    spans = .allocate(capacity: Self.spanCapacity)
    tasks = .allocate(capacity: 4)
  }

  deinit {
    spans.deallocate()
    tasks.deallocate()
  }

  /// Memory one worker needs to interleave a row group of any of the model's matrices.
  static func scratchByteCount(_ model: ModelDescription, _ pieces: [Range<Int>]) -> Int {
    var largest = 0
    for (tensor, range) in zip(model.tensors, pieces) where !range.isEmpty || tensor.stack != nil {
      guard tensor.layout == .rowMajor else { continue }
      largest = max(
        largest,
        MatrixProduct.scratchByteCount(type: tensor.type, columnCount: tensor.columnCount))
    }
    return (largest + 63) & ~63
  }

  /// Whether products with `tensor` take int8 activations.
  func takesBlocks(_ tensor: Int) -> Bool { matrices[tensor].rows.isQuantised }

  /// Computes up to three products of the same activations, in the order of the sweep.
  func multiply(
    _ x: Activations, _ first: LinearTask, _ second: LinearTask? = nil, _ third: LinearTask? = nil
  ) throws(RuntimeError) {
    tasks[0] = first
    var count = 1
    if let second {
      tasks[count] = second
      count += 1
    }
    if let third {
      tasks[count] = third
      count += 1
    }
    expect(byteCount: (0..<count).reduce(0) { $0 + matrices[tasks[$1].tensor].byteCount })
    do throws(LoaderError) {
      for task in 0..<count {
        if let address = stream.residentAddress(ofTensor: tasks[task].tensor) {
          append(resident: address, tasks[task], x)
          continue
        }
        for piece in stream.plan.piecesOfTensor[tasks[task].tensor] {
          if spanCount > 0, !stream.isReady(piece) { flush() }
          try append(piece, tasks[task], x)
        }
      }
      flush()
      try checkWhole()
    } catch {
      (spanCount, grainCount) = (0, 0)
      isCutShort.store(false, ordering: .relaxed)
      throw RuntimeError(error)
    }
  }

  /// Throws if products were left out, or the next ones would be.
  private func checkWhole() throws(LoaderError) {
    let isCut = isCutShort.exchange(false, ordering: .relaxed)
    if isCut || cancellation.isRaised { throw .interrupted }
  }

  /// Computes products with matrices of bundles, which the caller holds and which are in memory.
  ///
  /// - Throws: ``LoaderError/interrupted``.
  func multiply(_ products: UnsafeBufferPointer<BundleProduct>) throws(LoaderError) {
    expect(
      byteCount: products.reduce(0) {
        let part = families[$1.family].parts[$1.part]
        return $0 + matrices[part.tensor].rows.groupByteCount
          * RowGroup.groupCount(rows: part.rowCount)
      })
    for product in products {
      let part = families[product.family].parts[product.part]
      let (address, layout) = stream.part(
        product.part, ofBundle: product.bundle, of: product.family)
      append(
        RowSpan(
          origin: .bundle(family: product.family, bundle: product.bundle, part: product.part),
          activations: product.activations,
          operand: MatrixOperand(
            address: address, rows: matrices[part.tensor].rows, layout: layout,
            rowCount: part.rowCount),
          output: product.output, outputStride: product.outputStride,
          factor: factors[part.tensor]?[product.bundle] ?? 1,
          interleavesInPlace: layout == .rowMajor && part.rowCount % RowGroup.rowCount == 0
            && matrices[part.tensor].hasWholeGroups))
    }
    flush()
    try checkWhole()
  }

  /// Sizes the grains of a region of `byteCount` bytes of weights.
  private func expect(byteCount: Int) {
    grainByteCount = min(
      Self.longestGrainByteCount, byteCount / (Self.grainsPerWorker * pool.threadCount))
  }

  /// Adds a piece to the region, running the region first where it would not fit.
  private func append(
    _ number: Int, _ task: LinearTask, _ x: Activations
  ) throws(LoaderError) {
    let piece = stream.plan.pieces[number]
    let matrix = matrices[piece.tensor]
    let groupCount = RowGroup.groupCount(rows: piece.rowCount)
    let address = try stream.acquire(number)
    let layout = stream.layout(of: number)
    append(
      RowSpan(
        origin: .piece(number), activations: x,
        operand: MatrixOperand(
          address: address, rows: matrix.rows, layout: layout, rowCount: piece.rowCount),
        output: task.output + piece.firstRow, outputStride: task.outputStride,
        factor: factors[piece.tensor]?.pointee ?? 1,
        interleavesInPlace: layout == .rowMajor && stream.isPlaced(number)
          && piece.rowCount % RowGroup.rowCount == 0
          && groupCount * matrix.rows.groupByteCount == piece.byteCount))
  }

  /// Adds a whole tensor that stays in memory.
  private func append(
    resident address: UnsafeMutableRawPointer, _ task: LinearTask, _ x: Activations
  ) {
    let matrix = matrices[task.tensor]
    append(
      RowSpan(
        origin: .resident, activations: x,
        operand: MatrixOperand(
          address: address, rows: matrix.rows, layout: .interleaved, rowCount: matrix.rowCount),
        output: task.output, outputStride: task.outputStride,
        factor: factors[task.tensor]?.pointee ?? 1, interleavesInPlace: false))
  }

  private func append(_ span: RowSpan) {
    if spanCount == Self.spanCapacity { flush() }
    // A row group's product with many tokens is long enough to be a grain.
    let grain =
      span.activations.tokenCount >= Self.longGrainTokenCount
      ? 1 : max(1, grainByteCount / span.operand.rows.groupByteCount)
    spans[spanCount] = span
    spans[spanCount].firstGrain = grainCount
    spans[spanCount].grainGroupCount = grain
    spanCount += 1
    grainCount += (span.groupCount + grain - 1) / grain
  }

  /// Runs what has been gathered and gives the pieces back.
  private func flush() {
    guard spanCount > 0 else { return }
    clock.measure(.products) { pool.run(count: grainCount, self) }
    for span in spans[..<spanCount] {
      switch span.origin {
      case .piece(let piece):
        if span.interleavesInPlace { stream.markInterleaved(piece) }
        stream.release(piece)
      case .resident: break
      case .bundle(let family, let bundle, let part):
        if span.interleavesInPlace {
          stream.markInterleaved(part: part, ofBundle: bundle, of: family)
        }
      }
    }
    (spanCount, grainCount) = (0, 0)
  }

  /// The span that holds grain `index`, where it lies: a copy takes as long as all else that a grain costs beside its
  /// products.
  private func span(ofGrain index: Int) -> UnsafePointer<RowSpan> {
    var (low, high) = (0, spanCount)
    while high - low > 1 {
      let middle = (low + high) / 2
      if spans[middle].firstGrain <= index { low = middle } else { high = middle }
    }
    return UnsafePointer(spans.baseAddress! + low)
  }

  /// Multiplies one grain's rows.
  ///
  /// A region of a long prompt takes seconds, and a stop may not wait for its products. Interleaving in
  /// place is a change of the stream's memory, which outlives the stop: every grain finishes it.
  func perform(index: Int, worker: Int) {
    let span = span(ofGrain: index)
    let first = (index - span.pointee.firstGrain) * span.pointee.grainGroupCount
    let groups = first..<min(first + span.pointee.grainGroupCount, span.pointee.groupCount)
    let workerScratch = scratch.address + worker * scratchByteCount
    var operand = span.pointee.operand
    if span.pointee.interleavesInPlace {
      interleave(operand, groups, scratch: workerScratch)
      operand.layout = .interleaved
    }
    guard !cancellation.isRaised else {
      isCutShort.store(true, ordering: .relaxed)
      return
    }
    MatrixProduct.multiply(
      operand, groups: groups, by: span.pointee.activations, into: span.pointee.output,
      outputStride: span.pointee.outputStride, scratch: workerScratch)
    if span.pointee.factor != 1 { scale(span.pointee, groups) }
  }

  /// Multiplies the sums of whole rows, of every token, by their factor.
  private func scale(_ span: RowSpan, _ groups: Range<Int>) {
    let first = groups.lowerBound * RowGroup.rowCount
    let count = min(groups.upperBound * RowGroup.rowCount, span.operand.rowCount) - first
    for token in 0..<span.activations.tokenCount {
      VectorOps.scale(
        span.output + token * span.outputStride + first, by: span.factor, count: count)
    }
  }

  /// Turns row-major rows into row groups where they lie.
  private func interleave(
    _ operand: MatrixOperand, _ groups: Range<Int>, scratch: UnsafeMutableRawPointer
  ) {
    let groupByteCount = operand.rows.groupByteCount
    for group in groups {
      let rows = UnsafeMutableRawPointer(mutating: operand.address + group * groupByteCount)
      Interleaving.interleave(
        rows: rows, rowByteCount: groupByteCount / RowGroup.rowCount,
        rowCount: RowGroup.rowCount, type: operand.rows.type,
        columnCount: operand.rows.columnCount, into: scratch)
      rows.copyMemory(from: scratch, byteCount: groupByteCount)
    }
  }
}
