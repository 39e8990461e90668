import BlockIO
import Glibc
import ModelFormat
import Runtime
import Synchronization
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// A drive that fails while weights are streamed ends in an error that says where.
@Suite struct StreamFaultTests {
  /// EIO (5) or a file that ends early (0), from the n-th read on.
  @Test(arguments: [StorageBackend.uring, .pread], [-5, 0])
  func `A failing drive ends in a typed error and no logits`(backend: StorageBackend, result: Int)
    throws
  {
    let file = TemporaryFile(TinyModel().gguf(seed: 1).bytes())
    defer { extendLifetime(file) }
    let description = try ModelSource.describe(file.path)
    let configuration = try #require(description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 1, contextLength: 16, promptLength: 4, threadCount: 2)
    request.assumedProcessByteCount = 0
    for healthyCount in [0, 1, 2, 5, 9, 14] {
      let counter = ReadCounter()
      var hooks = DeviceHooks()
      hooks.filterResult = { counter.next() < healthyCount ? $0.result : result }
      let device = try openDevice(
        paths: [file.path], backend: backend, queueDepth: 32, hooks: hooks)
      let source = ModelSource(path: file.path, description: description, device: device)
      do throws(RuntimeError) {
        let session = try smallestSession(source, configuration, request)
        _ = try session.prefill([1, 2, 3, 4])
        for token in Int32(5)..<15 { _ = try session.decode(token) }
        Issue.record("logits from a drive that fails after \(healthyCount) reads")
      } catch {
        guard case .loader(.io(let cause)) = error else {
          Issue.record("\(error) after \(healthyCount) reads")
          continue
        }
        #expect(cause.path == file.path && cause.offset != nil, "\(error)")
        #expect(result == 0 ? cause.reason == .truncated : cause.errno == EIO, "\(error)")
      }
    }
  }

  /// EIO from the n-th read of one member on, while the others are healthy.
  @Test(arguments: [StorageBackend.uring, .pread])
  func `A failing drive of several is named, and there are no logits`(
    backend: StorageBackend
  ) throws {
    let image = try ImageBuilder.image(of: TinyModel().gguf(seed: 1).bytes())
    let layout = StripeLayout(
      unitByteCount: 8192, memberCount: 3, headerByteCount: StripeMember.headerByteCount,
      byteCount: image.count)
    let files = StripeBuilder.members(
      of: image, unitByteCount: 8192, paths: ["a", "b", "c"]
    ).map { TemporaryFile($0) }
    defer { extendLifetime(files) }
    let description = try ImageBuilder.description(of: image)
    let configuration = try #require(description.configuration)
    var request = MemoryPlan.Request(
      budgetByteCount: 1, contextLength: 16, promptLength: 4, threadCount: 2)
    request.assumedProcessByteCount = 0
    for (failing, healthyCount) in [(0, 0), (1, 3), (2, 5), (1, 8)] {
      let counter = ReadCounter()
      var hooks = DeviceHooks()
      hooks.filterResult = {
        $0.fileIndex != failing || counter.next() < healthyCount ? $0.result : -Int(EIO)
      }
      let device = try openDevice(
        paths: files.map(\.path), mapping: .stripe(layout), backend: backend, queueDepth: 32,
        hooks: hooks)
      let source = ModelSource(path: files[0].path, description: description, device: device)
      do throws(RuntimeError) {
        let session = try smallestSession(source, configuration, request)
        _ = try session.prefill([1, 2, 3, 4])
        for token in Int32(5)..<15 { _ = try session.decode(token) }
        Issue.record("logits without member \(failing)")
      } catch {
        guard case .loader(.io(let cause)) = error else {
          Issue.record("\(error) without member \(failing)")
          continue
        }
        #expect(cause.path == files[failing].path && cause.errno == EIO, "\(error)")
        #expect(cause.offset.map { $0 % 4096 } == 0)
      }
    }
  }

  /// An answer that is cancelled leaves its session with reads in flight, into memory that goes.
  @Test(arguments: [StorageBackend.uring, .pread, .mmap])
  func `A session follows one that was cancelled`(backend: StorageBackend) throws {
    let file = TemporaryFile(TinyModel().gguf(seed: 4).bytes())
    defer { extendLifetime(file) }
    let (cancellation, counter) = (CancellationFlag(), ReadCounter())
    var hooks = DeviceHooks()
    hooks.filterResult = {
      if counter.next() == counter.alarm.load(ordering: .relaxed) { cancellation.raise() }
      return $0.result
    }
    let description = try ModelSource.describe(file.path)
    let configuration = try #require(description.configuration)
    let source = ModelSource(
      path: file.path, description: description,
      device: try openDevice(
        paths: [file.path], backend: backend, queueDepth: 32, hooks: hooks))
    var request = MemoryPlan.Request(
      budgetByteCount: 1, contextLength: 16, promptLength: 4, threadCount: 2)
    request.assumedProcessByteCount = 0
    func bits(spare: Int) throws -> [[UInt32]] {
      let session = try smallestSession(
        source, configuration, request, spare: spare, cancellation)
      return try logitBits(session, prompt: [1, 2, 3, 4], decoding: [5, 6])
    }
    let expected = try bits(spare: 0)
    var cancelled = 0
    // More often than a ring has places for regions.
    for round in 0..<90 {
      counter.alarm.store(counter.count + round % 30, ordering: .relaxed)
      do { #expect(try bits(spare: round % 3 * (100 << 10)) == expected) } catch {
        guard case .interrupted? = error as? RuntimeError else { throw error }
        cancelled += 1
      }
      #expect(source.device.inFlight == 0)
      cancellation.lower()
      counter.alarm.store(.max, ordering: .relaxed)
      #expect(try bits(spare: 0) == expected)
    }
    #expect(cancelled > 20)
  }
}

/// A session in the smallest budget that works.
private func smallestSession(
  _ source: ModelSource, _ configuration: DecoderConfiguration, _ request: MemoryPlan.Request,
  spare: Int = 0, _ cancellation: CancellationFlag = CancellationFlag()
) throws(RuntimeError) -> Session {
  do { return try Session(source, configuration, request) } catch {
    guard case .budgetTooSmall(_, let minimum, _) = error else { throw error }
    var request = request
    request.budgetByteCount = minimum.bytes + spare
    return try Session(source, configuration, request, cancellation: cancellation)
  }
}

/// Numbers the reads of a device, whose threads may ask at once.
private final class ReadCounter: Sendable {
  private let value = Atomic<Int>(0)
  /// A read that a test waits for.
  let alarm = Atomic<Int>(.max)

  func next() -> Int { value.add(1, ordering: .relaxed).oldValue }

  var count: Int { value.load(ordering: .relaxed) }
}
