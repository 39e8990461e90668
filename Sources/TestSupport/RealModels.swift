import Glibc

/// Trained models that `tools/test` fetches, where they are.
public enum RealModels {
  public static let smolLM2 = file("SmolLM2-135M-Instruct.Q4_1.gguf")
  public static let gemma3 = file("gemma-3-270m-q4_k_m.gguf")

  /// The path of a model in the folder of models; nil if it is not there.
  private static func file(_ name: String) -> String? {
    func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
    let folder =
      variable("FLASHINFER_MODELS")
      ?? (variable("XDG_CACHE_HOME") ?? (variable("HOME") ?? "") + "/.cache") + "/flashinfer/models"
    let path = "\(folder)/\(name)"
    return access(path, R_OK) == 0 ? path : nil
  }
}
