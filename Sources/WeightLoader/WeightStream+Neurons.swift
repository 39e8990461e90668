import BlockIO
import TensorBasics

// Neurons go through the stream's device, so the thread that owns the stream asks for them too.
extension WeightStream {
  /// What the window of neurons did so far.
  public var neuronStatistics: NeuronStatistics { neurons?.statistics ?? NeuronStatistics() }

  /// Most bundles of neurons that can be held at once.
  public var neuronBatchLimit: Int { neurons?.batchLimit ?? 0 }

  /// Gives each of a layer's bundles a place in memory and starts the reads of those not there.
  ///
  /// - Parameters:
  ///   - bundles: ascending, at most ``neuronBatchLimit``.
  ///   - addresses: of each bundle's first byte, until the next call; the bytes of the bundles at
  ///     ``missingNeurons`` are there after ``waitForNeurons()``.
  package func holdNeurons(
    layer: Int, bundles: UnsafeBufferPointer<Int32>,
    addresses: UnsafeMutablePointer<UnsafeRawPointer>
  ) throws(LoaderError) {
    if let failure { throw failure }
    // What was read ahead may have come meanwhile.
    while let neurons, !neurons.isComplete, try reapOne(for: .neurons, waiting: false) {}
    try checkNeurons()
    neurons?.hold(layer: layer, bundles, addresses)
    try submitNeurons()
  }

  /// Starts to read those of a layer's bundles that are not in memory, which will probably be held next.
  ///
  /// - Precondition: all bundles that are held are in memory.
  package func expectNeurons(
    layer: Int, bundles: UnsafeBufferPointer<Int32>
  ) throws(LoaderError) {
    if let failure { throw failure }
    neurons?.expect(layer: layer, bundles)
    try submitNeurons()
  }

  /// Indexes into the bundles held last of those that are read.
  package var missingNeurons: UnsafeBufferPointer<Int32> {
    neurons?.missingIndexes ?? UnsafeBufferPointer(start: nil, count: 0)
  }

  /// Waits until all bundles that are held are in memory.
  public func waitForNeurons() throws(LoaderError) {
    guard let neurons else { return }
    guard !neurons.isComplete else { return try checkNeurons() }
    let start = monotonicNanoseconds()
    statistics.stalls += 1
    while !neurons.isComplete {
      try reapOne(for: .neurons)
      try submitNeurons()
    }
    statistics.stallNanoseconds += monotonicNanoseconds() - start
    try checkNeurons()
  }

  /// Compares bundles that came meanwhile with their checksums.
  func checkNeurons() throws(LoaderError) {
    do { try neurons?.checkArrivals() } catch { throw fail(error) }
  }

  /// Starts as many reads as the queue takes.
  func submitNeurons() throws(LoaderError) {
    guard let neurons else { return }
    var submitted = false
    while device.inFlight < device.capacity, let request = neurons.nextRead() {
      try submit(request)
      submitted = true
    }
    guard submitted else { return }
    do { try device.flush() } catch { throw fail(.io(error)) }
  }
}
