import BlockIO
import Glibc
package import TensorBasics

/// Repeats some work while one call to the system fails, each in its turn.
///
/// Whatever fails, the work either brings what it brings on a healthy machine or ends in an error, nothing
/// stays open, and the next time it works. A plan of faults holds for the process: tests run a sweep in a
/// process of their own.
package struct FaultSweep {
  /// The error numbers that calls of a kind fail with.
  package var errors: [FaultPlan.Call: [Int32]]
  /// Of more trials than this, some are drawn.
  package var trialLimit = 300
  package var seed: UInt64 = 1

  /// - Parameter calls: what fails; each with the error numbers that systems refuse it with.
  package init(_ calls: [FaultPlan.Call]) {
    errors = Dictionary(uniqueKeysWithValues: calls.map { ($0, Self.usualErrors(of: $0)) })
  }

  /// Every system call that writes.
  package static let writing: [FaultPlan.Call] = [
    .open, .openUnnamed, .inspect, .adjust, .write, .truncate, .sync, .rename, .lock,
  ]

  private static func usualErrors(of call: FaultPlan.Call) -> [Int32] {
    switch call {
    case .allocate: [ENOMEM]
    case .open: [EIO, EMFILE, ENOMEM, EINTR]
    case .openUnnamed: [EOPNOTSUPP, EMFILE, ENOSPC, EINTR]
    case .inspect: [EIO, ENOMEM, EINTR]
    case .adjust: [EINVAL, EMFILE]
    case .read, .completeRead: [EIO, EAGAIN, ENOMEM, EINTR, ECANCELED]
    case .write: [EIO, ENOSPC, EAGAIN, EINTR]
    case .truncate: [EIO, ENOSPC, EFBIG, EINTR]
    case .sync: [EIO, ENOSPC, EINTR]
    case .rename: [EIO, ENOSPC, EACCES]
    case .lock: [ENOLCK, EIO, EINTR]
    case .map: [ENODEV, ENOMEM]
    case .makeRing: [ENOMEM, EMFILE, EPERM]
    case .registerFiles, .registerMemory: [ENOMEM, EPERM]
    case .submitReads: [EIO, EAGAIN, EBUSY, EINTR]
    case .awaitReads: [EIO, EAGAIN, EINTR]
    case .startThread: [EAGAIN]
    }
  }

  /// One call that fails, counted from the beginning of the work.
  package struct Trial: CustomStringConvertible {
    package let call: FaultPlan.Call
    package let index: Int
    package let errno: Int32
    package var description: String { "\(call) \(index) with errno \(errno)" }
  }

  /// Where the work did not end well, in sentences; none if it always did.
  ///
  /// - Parameters:
  ///   - isFitting: whether an error tells of the call that failed.
  ///   - residue: what may not be other after a trial than before, such as the names in a folder.
  ///   - work: returns what must be the same whenever it succeeds.
  package func findings<Result: Equatable>(
    isFitting: (any Error, Trial) -> Bool, residue: () -> [String] = { [] },
    _ work: () throws -> Result
  ) throws -> [String] {
    // What is made once for a process is made here.
    _ = try work()
    FaultPlan.begin()
    let expected = try work()
    let counts = FaultPlan.end().counts
    let (before, descriptors) = (residue(), Self.openDescriptorCount)
    var findings = errors.keys.filter { (counts[$0] ?? 0) == 0 }.map { "\($0) is never made" }
    func check(_ found: Result, _ words: String) {
      if found != expected { findings.append("\(words): other results") }
    }
    for trial in trials(counts) {
      FaultPlan.begin(trial.call, trial.index..<trial.index + 1, errno: trial.errno)
      do { check(try work(), "\(trial)") } catch {
        if !isFitting(error, trial) { findings.append("\(trial): \(error)") }
      }
      _ = FaultPlan.end()
      let open = Self.openDescriptorCount - descriptors
      if open != 0 { findings.append("\(trial): \(open) more descriptors are open") }
      let after = residue()
      if after != before { findings.append("\(trial): \(after) is left in place of \(before)") }
      do { check(try work(), "after \(trial)") } catch {
        findings.append("after \(trial): \(error)")
      }
      if findings.count > 20 { break }
    }
    return findings
  }

  /// Whether an error states the number that a call failed with, or tells of memory.
  package static func namesErrno(_ error: any Error, _ trial: Trial) -> Bool {
    let words = "\(error)"
    return words.contains("(errno \(trial.errno))")
      || (trial.call == .allocate && words.contains("memory"))
  }

  private func trials(_ counts: [FaultPlan.Call: Int]) -> [Trial] {
    var trials: [Trial] = []
    for (call, numbers) in errors.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      for index in 0..<(counts[call] ?? 0) {
        trials += numbers.map { Trial(call: call, index: index, errno: $0) }
      }
    }
    guard trials.count > trialLimit else { return trials }
    var generator = SeededGenerator(seed: seed)
    return Array(trials.shuffled(using: &generator).prefix(trialLimit))
  }

  /// Files, folders and rings that this process has open. What threads of the system wake each other by
  /// (pipes, event counters) is not counted: it comes and goes by itself.
  package static var openDescriptorCount: Int {
    let names = (try? FolderListing.names(in: "/proc/self/fd")) ?? []
    return names.count { name in
      var target = [CChar](repeating: 0, count: 4096)
      guard readlink("/proc/self/fd/\(name)", &target, target.count - 1) > 0 else { return false }
      let text = String(
        decoding: target.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
      return text.hasPrefix("/") || text.contains("uring")
    }
  }
}
