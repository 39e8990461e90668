import CommandLineSupport
import KVCache
import Kernels
import ModelFormat
import Runtime
import TensorBasics
import Tokenization
import WeightLoader

extension RunReport {
  /// Prints the object of `--json` (docs/json.md).
  ///
  /// - Parameter seed: of the answer, also where it was drawn.
  func printJSON(_ model: LanguageModel, path: String, seed: UInt64) {
    let groups = [("timing", timing.figures), ("io", io.figures), ("memory", memory.figures)]
    JSONDocument(
      "flashinfer-run", Run.self, model: ModelSummary(path, model.source),
      figures: groups.flatMap(\.1)
    ).print { json in
      json.text("text", utf8: result.text)
      json.array("promptTokens", of: promptTokens) { $0.number(nil, $1) }
      json.array("tokens", of: result.tokens) { $0.number(nil, $1) }
      json.number("reusedTokens", result.reusedTokenCount)
      json.object("drafts") { json in
        json.number("sweeps", result.sweepCount)
        json.number("verified", result.drafts.draftedCount)
        json.number("accepted", result.drafts.acceptedCount)
      }
      json.text("finishReason", result.finishReason.rawValue)
      json.number("seed", seed)
      if reportsDistributions { writeDistributions(model.tokenizer, to: &json) }
      for (name, figures) in groups {
        json.object(name) { json in
          for figure in figures { json.number(figure.name, figure.value) }
          guard name == "io" else { return }
          json.text("kvType", io.kvType.rawValue)
          json.text("kvPolicy", "\(io.kvPolicy)")
        }
      }
      json.object("plan") { json in
        json.number("pinnedBytes", plan.pinnedBytes)
        json.number("streamedBytes", plan.streamedBytes)
      }
      inStorage?.write(to: &json)
    }
  }

  /// For each position, its most probable tokens, the first one first.
  private func writeDistributions(_ tokenizer: Tokenizer, to json: inout JSONWriter) {
    json.array("topLogprobs", of: result.topLogProbabilities) { list, position in
      list.array(of: position) { list, candidate in
        var bytes: [UInt8] = []
        tokenizer.decode(candidate.token, into: &bytes, includesControl: true)
        list.object { json in
          json.number("token", candidate.token)
          // A token can be a part of a character.
          json.text("text", String(decoding: bytes, as: UTF8.self))
          json.number("logprob", candidate.logProbability)
          if String(validating: bytes, as: UTF8.self) == nil {
            json.array("bytes", of: bytes) { $0.number(nil, $1) }
          }
        }
      }
    }
  }
}

extension RunReport.Timing {
  fileprivate var figures: [Figure] {
    [
      Figure("loadSeconds", loadSeconds, .seconds),
      Figure(
        "timeToFirstTokenSeconds", timeToFirstTokenSeconds ?? .nan, .seconds,
        absence: "no token was generated"),
      Figure(
        "prefillTokensPerSecond", prefillTokensPerSecond ?? .nan, .tokensPerSecond,
        absence: "the prompt was not read to its end"),
      Figure(
        "decodeTokensPerSecond", decodeTokensPerSecond ?? .nan, .tokensPerSecond,
        absence: "no token was generated after the first"),
    ]
  }
}

extension RunReport.IO {
  fileprivate var figures: [Figure] {
    [
      Figure("bytesRead", bytesRead, .bytes), Figure("requests", requests, .number),
      Figure("bytesPerToken", bytesPerToken, .bytes),
      Figure("dutyCycle", dutyCycle, .fraction, "of the time"),
      Figure("driveBytesPerSecond", driveBytesPerSecond, .bytesPerSecond),
      Figure("kvBlocksAttended", kvBlocksAttended, .number),
      Figure("kvBlocksSkipped", kvBlocksSkipped, .number),
      Figure("kvBytesRead", kvBytesRead, .bytes), Figure("kvBytesWritten", kvBytesWritten, .bytes),
      Figure("kvBytesPerToken", kvBytesPerToken, .bytes),
      Figure("kvResidentFraction", kvResidentFraction, .fraction, "of the rows"),
    ]
  }
}

extension RunReport.Memory {
  fileprivate var figures: [Figure] {
    [
      Figure("budgetBytes", budgetBytes, .bytes),
      Figure("peakResidentBytes", peakResidentBytes, .bytes),
    ]
  }
}
