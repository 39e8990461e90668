import Kernels
import ModelFormat
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

/// Multiplies activations with matrices piece by piece, as the stream delivers them.
///
/// Pieces that are in memory together become one parallel region; while the drive is behind, each
/// piece is one. Rows are independent, so neither pieces nor threads change a bit of the result.
final class LinearExecutor: ParallelRegion {
  private let stream: WeightStream
  private let pool: ThreadPool
  private let clock: StepClock
  private let tensors: [TensorRecord]
  /// Row groups that one worker takes at a time, of at most about ``grainByteCount`` of weights.
  private struct Grain {
    var piece: Int
    var address: UnsafeMutableRawPointer
    var groups: Range<Int>
    var task: Int
    var layout: RowLayout
    /// The worker leaves the interleaved rows in place of the row-major ones.
    var interleavesInPlace: Bool
  }
  private let grains: UnsafeMutableBufferPointer<Grain>
  private var grainCount = 0
  private let tasks: UnsafeMutableBufferPointer<LinearTask>
  /// Right-hand side of the products under way.
  private var activations: Activations?
  private let scratch: AlignedBuffer
  private let scratchByteCount: Int

  private static let grainByteCount = 48 << 10
  private static let grainCapacity = 2048
  private static let longGrainTokenCount = 24

  /// - Throws: ``RuntimeError/allocation(_:)``.
  init(stream: WeightStream, pool: ThreadPool, clock: StepClock) throws(RuntimeError) {
    self.stream = stream
    self.pool = pool
    self.clock = clock
    tensors = stream.source.description.tensors
    scratchByteCount = Self.scratchByteCount(stream.source.description, stream.plan.piecesOfTensor)
    do {
      scratch = try AlignedBuffer(byteCount: max(1, scratchByteCount * pool.threadCount))
    } catch { throw .allocation(error) }
    grains = .allocate(capacity: Self.grainCapacity)
    tasks = .allocate(capacity: 4)
  }

  deinit {
    grains.deallocate()
    tasks.deallocate()
  }

  /// Memory one worker needs to interleave a row group of any of the model's matrices.
  static func scratchByteCount(_ model: ModelDescription, _ pieces: [Range<Int>]) -> Int {
    var largest = 0
    for (tensor, range) in zip(model.tensors, pieces) where !range.isEmpty {
      guard tensor.layout == .rowMajor else { continue }
      largest = max(
        largest,
        MatrixProduct.scratchByteCount(type: tensor.type, columnCount: tensor.columnCount))
    }
    return (largest + 63) & ~63
  }

  /// Whether products with `tensor` take int8 activations.
  func takesBlocks(_ tensor: Int) -> Bool { tensors[tensor].type.isQuantised }

  /// Computes up to three products of the same activations, in the order of the sweep.
  func multiply(
    _ x: Activations, _ first: LinearTask, _ second: LinearTask? = nil, _ third: LinearTask? = nil
  ) throws(RuntimeError) {
    activations = x
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
    do throws(LoaderError) {
      for task in 0..<count {
        for piece in stream.plan.piecesOfTensor[tasks[task].tensor] {
          if grainCount > 0, !stream.isReady(piece) { flush() }
          try append(piece, task: task)
        }
      }
      flush()
      if stream.cancellation.isRaised { throw .interrupted }
    } catch {
      grainCount = 0
      throw RuntimeError(error)
    }
  }

  /// Cuts a piece into grains, running the region first where they would not fit.
  private func append(_ number: Int, task: Int) throws(LoaderError) {
    let piece = stream.plan.pieces[number]
    let record = tensors[piece.tensor]
    let groupCount = RowGroup.groupCount(rows: piece.rowCount)
    let groupByteCount = RowGroup.byteCount(record.type, columnCount: record.columnCount)
    // A row group's product with many tokens is long enough to be a grain.
    let grain =
      (activations?.tokenCount ?? 1) >= Self.longGrainTokenCount
      ? 1 : max(1, Self.grainByteCount / groupByteCount)
    if grainCount + (groupCount + grain - 1) / grain > Self.grainCapacity { flush() }
    let address = try stream.acquire(number)
    let layout = stream.layout(of: number)
    let interleavesInPlace =
      layout == .rowMajor && stream.isPinned(number)
      && piece.rowCount % RowGroup.rowCount == 0 && groupCount * groupByteCount == piece.byteCount
    var group = 0
    while group < groupCount {
      let end = min(group + grain, groupCount)
      grains[grainCount] = Grain(
        piece: number, address: address, groups: group..<end, task: task, layout: layout,
        interleavesInPlace: interleavesInPlace)
      grainCount += 1
      group = end
    }
  }

  /// Runs what has been gathered and gives the pieces back.
  private func flush() {
    guard grainCount > 0 else { return }
    clock.measure(.products) { pool.run(count: grainCount, self) }
    var last = -1
    for index in 0..<grainCount where grains[index].piece != last {
      last = grains[index].piece
      if grains[index].interleavesInPlace { stream.markInterleaved(last) }
      stream.release(last)
    }
    grainCount = 0
  }

  /// Multiplies one grain's rows.
  func perform(index: Int, worker: Int) {
    // A region of a long prompt takes seconds; a stop may not wait for it.
    guard !stream.cancellation.isRaised, let x = activations else { return }
    let grain = grains[index]
    let piece = stream.plan.pieces[grain.piece]
    let record = tensors[piece.tensor]
    let workerScratch = scratch.address + worker * scratchByteCount
    var operand = MatrixOperand(
      address: grain.address, type: record.type, layout: grain.layout, rowCount: piece.rowCount,
      columnCount: record.columnCount)
    if grain.interleavesInPlace {
      interleave(grain, record, scratch: workerScratch)
      operand.layout = .interleaved
    }
    let task = tasks[grain.task]
    MatrixProduct.multiply(
      operand, groups: grain.groups, by: x, into: task.output + piece.firstRow,
      outputStride: task.outputStride, scratch: workerScratch)
  }

  /// Turns the row-major rows of a grain into row groups where they lie.
  private func interleave(
    _ grain: Grain, _ record: TensorRecord, scratch: UnsafeMutableRawPointer
  ) {
    let groupByteCount = RowGroup.byteCount(record.type, columnCount: record.columnCount)
    for group in grain.groups {
      let rows = grain.address + group * groupByteCount
      Interleaving.interleave(
        rows: rows, rowByteCount: groupByteCount / RowGroup.rowCount,
        rowCount: RowGroup.rowCount, type: record.type, columnCount: record.columnCount,
        into: scratch)
      rows.copyMemory(from: scratch, byteCount: groupByteCount)
    }
  }
}
