package import ModelFormat
import Tokenization

/// Why a model's vocabulary cannot be used.
package enum VocabularyProblem {
  /// What is wrong with it; nil if nothing is, or there is none.
  package static func of(_ description: ModelDescription) -> String? {
    if let problem = description.tokenizerProblem { return problem.description }
    do throws(TokenizerError) {
      _ = try Tokenizer(of: description)
      return nil
    } catch { return error.description }
  }
}
