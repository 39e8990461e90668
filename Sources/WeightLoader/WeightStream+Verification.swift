import ModelFormat
import TensorBasics

// Runs are compared when a piece of theirs is acquired, before anybody sees the bytes.
extension WeightStream {
  /// Whether the reading of a run that is in memory was compared.
  func isCompared(_ index: Int) -> Bool {
    let sequence = sequenceOfRun[index]
    return sequence < 0 ? isHomeCompared[index] : flights[sequence % flights.count].isCompared
  }

  /// Compares a run that is in memory: the first reading with the image's checksums, others with it.
  func compare(_ index: Int, at address: UnsafeRawPointer) throws(LoaderError) {
    let run = plan.runs[index]
    let bytes = UnsafeRawBufferPointer(start: address, count: run.byteCount)
    if !isVerified[index] {
      isVerified[index] = true
      do { try verifier?.take(bytes, at: run.offset) } catch { throw fail(error) }
    }
    guard let rereads, let verifier else { return }
    let sequence = sequenceOfRun[index]
    if sequence < 0 {
      isHomeCompared[index] = true
    } else {
      flights[sequence % flights.count].isCompared = true
    }
    guard rereads.matches(bytes, run: index) else {
      throw fail(.format(verifier.mismatch(in: bytes, at: run.offset)))
    }
  }
}
