import Synchronization

/// A request to stop, raised from any thread or a signal handler and polled by long work.
public final class CancellationFlag: Sendable {
  private let raised = Atomic(false)

  public init() {}

  public var isRaised: Bool { raised.load(ordering: .relaxed) }

  /// Asks for a stop; safe in a signal handler.
  public func raise() { raised.store(true, ordering: .relaxed) }

  /// Withdraws the request, once what it stopped has ended.
  public func lower() { raised.store(false, ordering: .relaxed) }
}
