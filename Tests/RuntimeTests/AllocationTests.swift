import BlockIO
import CAllocationCount
import Glibc
import ModelFormat
import Runtime
import TensorBasics
import TestSupport
import Testing
import WeightLoader

/// The decode loop allocates nothing: each case runs in a process of its own, in which every
/// allocation of every thread is counted.
@Suite struct AllocationTests {
  @Test func `The count sees allocations`() {
    let before = allocation_count()
    let array = [Int](repeating: 1, count: 1000 + Int(before & 1))
    #expect(array.count >= 1000 && allocation_count() > before)
  }

  @Test func `Decoding in memory allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: false) }
    Self.expectNone(result)
  }

  @Test func `Decoding an image from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true) }
    Self.expectNone(result)
  }

  @Test func `Decoding a GGUF from the drive allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: false, isStreamed: true) }
    Self.expectNone(result)
  }

  @Test func `Decoding with pread threads allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: true, isStreamed: true, backend: .pread) }
    Self.expectNone(result)
  }

  @Test func `Decoding through a mapping allocates nothing`() async {
    let result = await #expect(
      processExitsWith: .success, observing: [\.standardOutputContent]
    ) { Self.report(image: false, isStreamed: true, backend: .mmap) }
    Self.expectNone(result)
  }

  /// Expects the process to have printed that it allocated nothing.
  private static func expectNone(_ result: ExitTest.Result?) {
    let output = String(decoding: result?.standardOutputContent ?? [], as: UTF8.self)
    #expect(output.contains("allocations: 0;"), "\(output)")
  }

  /// Prints what ``check(image:isStreamed:backend:)`` counts, or its error.
  private static func report(image: Bool, isStreamed: Bool, backend: StorageBackend = .auto) {
    do {
      print("allocations: \(try check(image: image, isStreamed: isStreamed, backend: backend));")
    } catch { print("\(error)") }
  }

  /// Allocations of fifty tokens after the first.
  private static func check(
    image: Bool, isStreamed: Bool, backend: StorageBackend
  ) throws -> Int {
    var tiny = TinyModel(architecture: "gemma3")
    tiny.embeddingLength = 256
    tiny.feedForwardLength = 512
    tiny.headLength = 64
    tiny.matrixTypes = [.q8_0, .q4_K, .f16]
    let path = "/tmp/flashinfer-allocation-\(getpid())"
    let gguf = tiny.gguf(seed: 5).bytes()
    let bytes = image ? try ImageBuilder.image(of: gguf) : gguf
    guard let file = fopen(path, "w") else { exit(2) }
    _ = bytes.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
    fclose(file)
    defer { unlink(path) }
    let source = try ModelSource.open(path, backend: backend)
    guard let configuration = source.description.configuration else { exit(2) }
    var request = MemoryPlan.Request(
      budgetByteCount: isStreamed ? 1 : 1 << 30, contextLength: 128, promptLength: 4,
      threadCount: 2)
    request.assumedProcessByteCount = 0
    if isStreamed {
      do { _ = try Session(source, configuration, request) } catch {
        guard case .budgetTooSmall(_, let minimum) = error else { exit(2) }
        request.budgetByteCount = minimum.bytes
      }
    }
    let session = try Session(source, configuration, request)
    guard session.plan.residency.isFullyPinned != isStreamed else { exit(3) }
    _ = try session.prefill([1, 2, 3, 4])
    var generator = SeededGenerator(seed: 1)
    func decode() throws { _ = try session.decode(Int32(generator.next() % 300)) }
    try decode()
    let before = allocation_count()
    for _ in 0..<50 { try decode() }
    return allocation_count() - before
  }
}
