/// Places where tests stand in for the kernel; empty outside tests.
package struct DeviceHooks: Sendable {
  /// Called before a ring is set up; an error number other than 0 is the kernel's refusal.
  package var ringSetupErrno: (@Sendable () -> Int32)?
  /// Called before a region of so many bytes is registered; other than 0 is the kernel's refusal.
  package var registrationErrno: (@Sendable (_ byteCount: Int) -> Int32)?
  /// Called with each read's result; returns the result to go by.
  package var filterResult: (@Sendable (ReadAttempt) -> Int)?
  /// Called before each write at an offset; an error number other than 0 is the kernel's refusal.
  package var writeErrno: (@Sendable (_ offset: Int) -> Int32)?
  /// Whether opening with O_DIRECT fails as on file systems that lack it.
  package var refusesDirectOpen = false

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
