/// Where tests take the kernel's place in the reads and writes of one device; empty outside tests. Other
/// failures come from a `TensorBasics.FaultPlan`.
package struct DeviceHooks: Sendable {
  /// Called with each read's result; returns the result to use instead.
  package var filterResult: (@Sendable (ReadAttempt) -> Int)?
  /// Called before each write at an offset; an error number other than 0 is the kernel's refusal.
  package var writeErrno: (@Sendable (_ offset: Int) -> Int32)?
  /// The error number with which opening for direct I/O fails, as on file systems that lack it; 0 = none.
  package var directOpenErrno: Int32 = 0

  package init() {}
}

/// One system call that read, as a test's filter sees it.
package struct ReadAttempt: Sendable {
  package let fileIndex: Int
  package let offset: Int
  package let byteCount: Int
  package let isDirect: Bool
  /// Bytes read, or the negated error number.
  package let result: Int
}
