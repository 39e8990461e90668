public import BlockIO
import Glibc
import HostResources
public import ModelFormat
import Synchronization
public import TensorBasics

/// Reads the tensors of a file larger than memory as fast as the drive gives them, within a budget.
///
/// For programs that want the bytes of a GGUF file, flash image or safetensors file (or a folder of these)
/// and bring their own arithmetic. Tensors **stream** through a ring in the order of the file or any other,
/// with the drive's queue kept full; single ones are **loaded** into memory of their own, which may be asked
/// for ahead of use (**prefetch**). An image's bytes are compared with their checksums as they come.
///
/// ```swift
/// let loader = try TensorLoader.open("model.gguf", ram: 2 << 30)
/// try loader.stream { piece in
///   print(loader.tensors[piece.tensor].name, piece.byteOffset, piece.byteCount)
/// }
/// ```
///
/// One thread at a time uses a loader; another is refused with ``LoaderError/inUse(path:)``.
public final class TensorLoader {
  /// The path the user gave.
  public let path: String
  /// What kind of file it is.
  public let kind: ModelFile.Kind
  /// What the file holds, in its order; of an image without bundles of neurons.
  public let tensors: [LoadableTensor]
  /// The files that it lies in: one, or those of a folder.
  public let files: [String]
  /// What its files say beside their tensors.
  public let metadata: [MetadataEntry]
  /// Where the budget goes.
  public let plan: LoaderPlan
  /// Raised from any thread, it ends the stream or the wait under way, or if there is none the next one,
  /// with ``LoaderError/interrupted``.
  public let cancellation = CancellationFlag()

  /// What the drive did so far; only for the thread that uses the loader.
  public var statistics: IOStatistics { device.statistics }
  /// One-line warnings for people, e.g. that a slower way of reading is in use.
  public var notes: [String] { device.notes }
  /// Bytes of all tensors.
  public var byteCount: Int { tensors.reduce(0) { $0 + $1.byteCount } }

  let device: any BlockDevice
  let image: ModelDescription?
  let verifier: ExtentVerifier?
  let memory: StreamMemory
  let account: MemoryAccount
  var state: StreamState
  /// Loads asked for and not handed out, and those of them with reads to submit, oldest first.
  var loads: [[TensorPart]: PendingLoad] = [:]
  var loadQueue: [PendingLoad] = []
  var loadOfTag: [UInt64: PendingLoad] = [:]
  var nextLoadTag: UInt64 = 0
  /// Why the device is unusable.
  var failure: LoaderError?

  /// Why the stream under way ended early.
  var streamFailure: LoaderError?

  private let processID = getpid()
  private let isInUse = Atomic(false)
  private var isClosed = false
  /// Made when it is first asked for, by any thread.
  private let indexOfName = Mutex<[ExactString: Int]?>(nil)

  /// Opens a file, or a folder of safetensors files.
  ///
  /// - Parameters:
  ///   - ram: bound on the process's peak resident set from now on, in bytes; nil = 80 % of what is free.
  /// - Throws: ``LoaderError/budgetTooSmall(budget:minimum:)`` if that is not enough,
  ///   ``LoaderError/io(_:)``, ``LoaderError/format(_:)``, ``LoaderError/missingFile(path:_:)``,
  ///   ``LoaderError/allocation(_:)``.
  public static func open(
    _ path: String, ram: Int? = nil, options: LoaderOptions = LoaderOptions()
  ) throws(LoaderError) -> TensorLoader {
    let earlierPeak = ProcessMemory.peakResidentByteCount
    let catalogue = try TensorCatalogue(path, mirrors: options.mirrors)
    let device = try catalogue.openDevice(
      backend: options.backend, queueDepth: options.deviceQueueDepth)
    // Reading the header is over, but its memory counts if it set the process's peak.
    let peak = ProcessMemory.peakResidentByteCount
    let budget = ram ?? HostLimits().defaultBudget
    guard peak <= budget || peak == earlierPeak || options.assumedResidentByteCount != nil else {
      throw .budgetTooSmall(budget: ByteCount(budget), minimum: ByteCount(peak))
    }
    let plan = try LoaderPlan.make(
      budget: budget,
      residentByteCount: options.assumedResidentByteCount ?? ProcessMemory.residentByteCount,
      options: options, tensors: catalogue.tensors,
      slackByteCount: catalogue.image.map(ExtentVerifier.slackByteCount)
        ?? 2 * AlignedBuffer.pageByteCount)
    let memory: StreamMemory
    do { memory = try StreamMemory(byteCount: plan.streamByteCount) } catch {
      throw .allocation(error)
    }
    device.register(memory.destination)
    return try TensorLoader(path, catalogue, plan, device, memory)
  }

  private init(
    _ path: String, _ catalogue: TensorCatalogue, _ plan: LoaderPlan, _ device: any BlockDevice,
    _ memory: StreamMemory
  ) throws(LoaderError) {
    self.path = path
    self.plan = plan
    self.device = device
    self.memory = memory
    kind = catalogue.kind
    tensors = catalogue.tensors
    files = catalogue.files
    metadata = catalogue.metadata
    image = catalogue.image
    if let image {
      verifier = try ExtentVerifier(image)
    } else {
      verifier = nil
    }
    account = MemoryAccount(limit: plan.heldByteCount)
    state = StreamState(plan)
  }

  /// Waits until nothing is read into memory any more; in a forked child the ring is left to its owner.
  deinit {
    guard getpid() == processID else {
      _ = Unmanaged.passRetained(device as AnyObject)
      return
    }
    device.drain(unless: cancellation)
  }

  // MARK: - What there is

  /// The index of the tensor of that name; nil if there is none.
  public func index(of name: String) -> Int? {
    indexOfName.withLock { index in
      let known =
        index
        ?? Dictionary(
          tensors.indices.map { (ExactString(tensors[$0].name), $0) },
          uniquingKeysWith: { first, _ in first })
      index = known
      return known[ExactString(name)]
    }
  }

  /// The tensor of that name.
  ///
  /// - Throws: ``LoaderError/noSuchTensor(_:path:)``.
  public func tensor(named name: String) throws(LoaderError) -> LoadableTensor {
    guard let index = index(of: name) else { throw .noSuchTensor(name, path: path) }
    return tensors[index]
  }

  /// All parts of all tensors, as they lie in the file.
  public var allParts: [TensorPart] {
    var parts: [(start: Int, part: TensorPart)] = []
    parts.reserveCapacity(tensors.count)
    for (index, tensor) in tensors.enumerated() {
      for part in 0..<tensor.partCount {
        parts.append((tensor.extent(ofPart: part).offset, TensorPart(index, part: part)))
      }
    }
    parts.sort {
      let (left, right) = (tensors[$0.part.tensor].fileIndex, tensors[$1.part.tensor].fileIndex)
      return (left, $0.start) < (right, $1.start)
    }
    return parts.map(\.part)
  }

  /// The matrices of one expert of a layer, which in an image with bundles lie together: gate, up and down
  /// for most models.
  ///
  /// - Throws: ``LoaderError/noSuchExpert(_:layer:count:path:)``.
  public func bundle(layer: Int, expert: Int) throws(LoaderError) -> [TensorPart] {
    let names = ["gate", "up", "gate_up", "down"].map { "blk.\(layer).ffn_\($0)_exps.weight" }
    let matrices = names.compactMap { index(of: $0) }
    let count = matrices.map { tensors[$0].partCount }.min() ?? 0
    guard (0..<count).contains(expert) else {
      throw .noSuchExpert(expert, layer: layer, count: count, path: path)
    }
    return matrices.map { TensorPart($0, part: expert) }
  }

  /// ``statistics``, where no other thread uses the loader.
  ///
  /// - Throws: what every call may throw.
  package func currentStatistics() throws(LoaderError) -> IOStatistics {
    try enter()
    defer { leave() }
    return device.statistics
  }

  // MARK: - Who may call

  /// Ends the loader; pieces and loaded tensors stay valid, everything else throws from here on.
  ///
  /// - Throws: ``LoaderError/inUse(path:)``, ``LoaderError/forked(path:)``.
  public func close() throws(LoaderError) {
    do throws(LoaderError) { try enter() } catch {
      if case .closedByCaller = error { return }
      throw error
    }
    defer { leave() }
    // Reads in flight are waited for when their memory is freed.
    state.discard()
    loads = [:]
    account.close()
    isClosed = true
  }

  /// Makes the caller the loader's user until ``leave()``.
  func enter() throws(LoaderError) {
    guard getpid() == processID else { throw .forked(path: path) }
    guard !isInUse.exchange(true, ordering: .acquiring) else { throw .inUse(path: path) }
    guard !isClosed else {
      leave()
      throw .closedByCaller(path: path)
    }
  }

  func leave() { isInUse.store(false, ordering: .releasing) }

  func check(_ parts: [TensorPart]) throws(LoaderError) {
    for part in parts {
      guard tensors.indices.contains(part.tensor) else {
        throw .noSuchTensorIndex(part.tensor, count: tensors.count, path: path)
      }
      let tensor = tensors[part.tensor]
      guard (0..<tensor.partCount).contains(part.part) else {
        throw .noSuchPart(part.part, of: tensor.name, count: tensor.partCount, path: path)
      }
      if let rows = part.rows, rows.lowerBound < 0 || rows.upperBound > tensor.partRowCount {
        throw .noSuchRows(rows, of: tensor.name, count: tensor.partRowCount, path: path)
      }
    }
  }
}
