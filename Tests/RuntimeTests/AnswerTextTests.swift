import Runtime
import TensorBasics
import TestSupport
import Testing

/// Text that is given out as tokens come is the text of all of them, up to the first stop string.
@Suite struct AnswerTextTests {
  @Test func `Nothing is taken back, and nothing follows a stop string`() throws {
    let rig = try EngineRig()
    var generator = SeededGenerator(seed: 0xA7)
    for _ in 0..<400 {
      // Few kinds of tokens, so that stop strings are met.
      let kinds = (0..<3).map { _ in Int32.random(in: 0..<300, using: &generator) }
      let tokens = (0..<30).map { _ in kinds.randomElement(using: &generator)! }
      var (plain, whole, lengths) = (AnswerText(rig.model.tokenizer), [UInt8](), [Int]())
      for token in tokens {
        plain.append(token, to: &whole)
        lengths.append(whole.count)
      }
      plain.finish(&whole)
      lengths.append(whole.count)
      let text = Array(String(decoding: whole, as: UTF8.self))
      let stops = (0..<2).compactMap { _ -> String? in
        guard text.count > 4 else { return nil }
        let start = Int.random(in: 0..<text.count - 3, using: &generator)
        return String(text[start..<start + Int.random(in: 1...3, using: &generator)])
      }
      var (cut, found) = (AnswerText(rig.model.tokenizer, stops: StopStrings(stops)), [UInt8]())
      for token in tokens {
        let before = found.count
        cut.append(token, to: &found)
        #expect(cut.stop == nil || found.count >= before)
        #expect(whole.starts(with: found))
      }
      cut.finish(&found)
      // The first token that completes one decides.
      let first = lengths.lazy.compactMap { length in
        (0..<length).first { start in
          stops.contains { whole[start..<length].starts(with: $0.utf8) }
        }
      }.first
      #expect(found == Array(whole[..<(first ?? whole.count)]))
      #expect((cut.stop != nil) == (first != nil))
      if let first, let stop = cut.stop { #expect(whole[first...].starts(with: stop.utf8)) }
    }
  }
}
