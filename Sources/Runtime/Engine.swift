import HostResources
import ModelFormat
public import Tokenization

/// One open model that answers any number of sequences, whose rows share its sweeps.
///
/// ```swift
/// let engine = try Engine(model, request)                      // request.sequenceCount at the same time
/// let sequence = try engine.open(SequenceRequest(tokens: prompt, limit: 100))
/// var (text, bytes) = (AnswerText(engine.tokenizer), [UInt8]())
/// while let event = sequence.next() { text.append(event, to: &bytes) }
/// ```
///
/// It works on a thread of its own, which alone touches the model. Any thread opens sequences and pulls what they bring;
/// the engine never calls anyone and waits for nobody. While no turn is under way it sleeps.
///
/// A sequence's tokens are those that it has alone, bit for bit, whatever others are answered beside it, are cancelled
/// or fail. What goes wrong with one, such as keys and values that cannot be read, ends that one
/// (``TokenSequence/Event/failed(_:)``). A failure of the model or its drive ends all of them, and the engine:
/// every later call throws it.
///
/// Nothing else may use the model's device as long as the engine is there. A process that was forked has no engine.
public final class Engine: Sendable {
  /// What happens to a sequence that has no place.
  public enum WhenFull: Sendable {
    /// It is refused.
    case refuse
    /// It waits for one, after those that wait already.
    case queue
  }

  /// Where contexts are kept between engines: a folder, which is made if there is none.
  public struct Store: Sendable {
    public var path: String
    /// Most bytes of its entries; what is worth least goes first.
    public var byteLimit: Int
    /// Most bytes that are written to it a day (UTC), because drives wear by that.
    public var dailyWriteLimit: Int

    public init(path: String, byteLimit: Int = 8 << 30, dailyWriteLimit: Int = .max) {
      self.path = path
      self.byteLimit = byteLimit
      self.dailyWriteLimit = dailyWriteLimit
    }
  }

  /// How an engine ends.
  public enum Stop: Sendable {
    /// Turns under way are cancelled.
    case now
    /// Turns that were asked for are answered first.
    case finishing
  }

  public let plan: MemoryPlan
  /// One-line warnings for people, e.g. of threads that the system refused.
  public let notes: [String]
  /// What makes text of tokens.
  public let tokenizer: Tokenizer
  let exchange: EngineExchange
  let store: Store?
  private let thread: BackgroundThread

  /// Starts the engine's thread, which plans memory; weights are read by the first sweeps.
  ///
  /// - Parameters:
  ///   - request: with the number of sequences that have a place at the same time, and a context long enough for
  ///     the longest.
  ///   - store: where sequences find the keys and values of prompts that begin as others did, and leave theirs; nil =
  ///     nowhere. What goes wrong with it is a warning.
  ///   - draft: where drafts of tokens come from, which change the answers' speed and nothing else. There are none where
  ///     none are planned (``MemoryPlan/Request/draftRowCount``). Nothing else may use a draft model.
  /// - Throws: as ``Session/init(_:_:_:cancellation:decodeAttention:)``; ``RuntimeError/thread(_:)``.
  public init(
    _ model: LanguageModel, _ request: MemoryPlan.Request, store: Store? = nil,
    draft: DraftChoice = .lookup
  ) throws(RuntimeError) {
    let exchange = EngineExchange(
      vocabularyCount: model.configuration.vocabularyCount, takesGrammars: request.usesGrammars)
    let thread: BackgroundThread
    do throws(ThreadError) {
      thread = try BackgroundThread(
        EngineThread(model, request, store, draft, exchange),
        stackByteCount: EngineThread.stackByteCount)
    } catch { throw .thread(error) }
    do throws(RuntimeError) { (plan, notes) = try exchange.waitForStart() } catch {
      thread.join()
      throw error
    }
    self.exchange = exchange
    self.store = store
    self.thread = thread
    tokenizer = model.tokenizer
  }

  deinit {
    exchange.end(.now)
    thread.join()
  }

  /// Begins a sequence: its tokens are read, and continued.
  ///
  /// - Throws: ``RuntimeError/badPrompt(_:)`` if the tokens do not fit the context;
  ///   ``SequenceError/full(sequenceCount:)``, ``SequenceError/engineStopped``, ``SequenceError/noGrammars``; what the engine failed with.
  public func open(
    _ request: SequenceRequest, whenFull: WhenFull = .refuse
  ) throws(RuntimeError) -> TokenSequence {
    TokenSequence(self, try exchange.open(request, whenFull: whenFull))
  }

  /// Waits until one of the sequences has events that were not taken.
  ///
  /// - Parameter timeout: how long to wait; nil = as long as it takes.
  /// - Returns: the numbers of all that have some, ascending; none if the time ended.
  public func ready(timeout: Duration? = nil) -> [UInt64] {
    exchange.ready(until: TokenSequence.deadline(timeout))
  }

  /// A descriptor for event loops, which is readable when sequences may have events.
  ///
  /// Read its eight bytes, then take all events of those that ``ready(timeout:)`` names. It is closed with the engine.
  ///
  /// - Throws: ``RuntimeError/loader(_:)`` if the system refuses one.
  public func eventDescriptor() throws(RuntimeError) -> Int32 { try exchange.eventDescriptor() }

  /// What the model or its drive failed with, which ended the engine; nil = nothing.
  public var failure: RuntimeError? { exchange.failure }

  /// What it did up to the end of the last sweep.
  public func statistics() -> EngineStatistics { exchange.currentStatistics }

  /// One-line warnings since the last call, e.g. of a drive that does not answer.
  public func takeWarnings() -> [String] { exchange.takeWarnings() }

  /// Ends the engine, and returns when its memory is free: no turn begins from here on.
  ///
  /// Events that were not taken stay. May be called more than once, also while another thread waits for the end.
  public func stop(_ how: Stop = .now) { exchange.end(how) }
}
