import BlockIO
import Glibc
import HostResources
import Kernels
import Synchronization
import TestSupport
import Testing

/// Where the handler of the test below ran, as a thread's number.
private let handlingThread = Atomic<UInt>(0)

/// Our threads and the host program's signals.
@Suite(.serialized) struct SignalTests {
  /// Threads of this process by number, with the signals that each blocks.
  private static func masks() -> [String: UInt64] {
    var masks: [String: UInt64] = [:]
    guard let folder = opendir("/proc/self/task") else { return masks }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      guard let file = fopen("/proc/self/task/\(name)/status", "re") else { continue }
      defer { fclose(file) }
      var line = [CChar](repeating: 0, count: 4096)
      while fgets(&line, Int32(line.count), file) != nil {
        let text = String(
          decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard text.hasPrefix("SigBlk:") else { continue }
        masks[name] = UInt64(text.dropFirst(7).filter { !$0.isWhitespace }, radix: 16)
      }
    }
    return masks
  }

  /// Runs `body` on a thread that blocks no signal, as a host program's does.
  private func unblocked(_ body: () throws -> Void) rethrows {
    var (none, previous) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
    try body()
  }

  private final class Idler: BackgroundWork, @unchecked Sendable {
    // Safety: atomics and constants.
    let isStopped = Atomic<Bool>(false)
    let number = Atomic<UInt>(0)
    /// The thread's number as the kernel has it.
    let name = Mutex("")
    func run() {
      number.store(UInt(pthread_self()), ordering: .releasing)
      var path = [CChar](repeating: 0, count: 256)
      let count = readlink("/proc/thread-self", &path, 255)
      let text = String(
        decoding: path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
      name.withLock { $0 = String(text.split(separator: "/").last ?? "") }
      while !isStopped.load(ordering: .acquiring) { usleep(500) }
    }
  }

  @Test func `Threads of ours block every signal but those that their own instructions raise`()
    throws
  {
    let file = TemporaryFile([UInt8](repeating: 1, count: 1 << 16))
    try unblocked {
      let before = Set(Self.masks().keys)
      let idler = Idler()
      let thread = try BackgroundThread(idler)
      let pool = ThreadPool(threadCount: 3)
      let device = try ThreadedDevice(paths: [file.path], queueDepth: 4, threadCount: 2)
      while idler.name.withLock({ $0.isEmpty }) { usleep(100) }
      let own = idler.name.withLock { $0 }
      let expected = try #require(Self.masks()[own])
      for signal in [
        SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGALRM, SIGCHLD, SIGPROF, SIGPIPE, SIGQUIT,
      ] {
        #expect(expected & 1 << UInt64(signal - 1) != 0, "signal \(signal)")
      }
      for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT] {
        #expect(expected & 1 << UInt64(signal - 1) == 0, "signal \(signal)")
      }
      // Other tests' threads may begin meanwhile; ours are at least the five. Until a thread runs, the
      // C library blocks all.
      var alikeCount = 0
      for _ in 0..<10_000 where alikeCount < 5 {
        usleep(1000)
        alikeCount = Self.masks().count { !before.contains($0.key) && $0.value == expected }
      }
      #expect(alikeCount >= 5, "\(Self.masks())")
      withExtendedLifetime((pool, device)) {}
      idler.isStopped.store(true, ordering: .releasing)
      thread.join()
    }
  }

  @Test func `The caller's own signals are as they were, also where a thread is refused`() throws {
    try unblocked {
      let idler = Idler()
      let thread = try BackgroundThread(idler)
      var now = sigset_t()
      pthread_sigmask(SIG_SETMASK, nil, &now)
      for signal in 1...31 { #expect(sigismember(&now, Int32(signal)) == 0) }
      idler.isStopped.store(true, ordering: .releasing)
      thread.join()
    }
  }

  @Test func `A signal to the process is handled by a thread of the host`() throws {
    var (action, old) = (sigaction(), sigaction())
    action.__sigaction_handler.sa_handler = { _ in
      handlingThread.store(UInt(pthread_self()), ordering: .releasing)
    }
    sigaction(SIGUSR2, &action, &old)
    defer { sigaction(SIGUSR2, &old, nil) }
    try unblocked {
      let idlers = (0..<4).map { _ in Idler() }
      let threads = try idlers.map { try BackgroundThread($0) }
      while idlers.contains(where: { $0.number.load(ordering: .acquiring) == 0 }) { usleep(100) }
      let ours = Set(idlers.map { $0.number.load(ordering: .acquiring) })
      for _ in 0..<100 {
        handlingThread.store(0, ordering: .releasing)
        kill(getpid(), SIGUSR2)
        while handlingThread.load(ordering: .acquiring) == 0 { usleep(10) }
        #expect(!ours.contains(handlingThread.load(ordering: .acquiring)))
      }
      for idler in idlers { idler.isStopped.store(true, ordering: .releasing) }
      for thread in threads { thread.join() }
    }
  }
}
