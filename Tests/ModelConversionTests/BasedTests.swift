import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Folders of Based as they are published, and whose configuration is another one.
@Suite struct BasedTests {
  private func logits(_ folder: EditedFolder) throws -> [Float] {
    let written = folder.write()
    let source = try ModelSource.open(written.path)
    return try VectorModel.logits(source, try #require(source.description.configuration))
  }

  private func error(_ old: String, _ new: String) throws -> String {
    var folder = try EditedFolder("based")
    #expect(folder.config.contains(old), "\(old)")
    folder.config = folder.config.replacing(old, with: new)
    let written = folder.write()
    do throws(LoaderError) {
      _ = try ModelSource.open(written.path)
      return "opened"
    } catch { return error.description }
  }

  /// Published configurations need not name a class; weights of a training run have a prefix, its counts, and the table twice.
  @Test func `What a training run saved gives the same`() throws {
    let expected = try logits(EditedFolder("based"))
    var folder = try EditedFolder("based")
    folder.config = folder.config.replacing(#""architectures""#, with: #""kinds""#)
    folder.tensors["transformer.embeddings.word_embeddings.weight"] =
      folder.tensors["lm_head.weight"]
    let names = Array(folder.tensors.keys)
    for name in names { folder.tensors["model." + name] = try folder.take(name) }
    folder.tensors["train_metrics.num-tokens.count"] = .init(
      type: "F32", shape: [1], bytes: [0, 0, 0, 0])
    #expect(try logits(folder) == expected)
  }

  @Test(arguments: [
    (#""rotary_emb_fraction": 1"#, #""rotary_emb_fraction": 0.5"#),
    (#""rotary_emb_fraction": 1,"#, ""),
    (#""rms_norm": true"#, #""rms_norm": false"#),
    (#""qkv_proj_bias": false"#, #""qkv_proj_bias": true"#),
    (#""max_position_embeddings": 0"#, #""max_position_embeddings": 512"#),
    (#""activation_function": "swiglu""#, #""activation_function": "gelu""#),
    (#""n_head": 2"#, #""n_head": 0"#), (#""n_head": 2"#, #""n_head": 5"#),
    (#""n_embd": 32"#, #""n_embd": 4611686018427387904"#),
    (#""alt_mixer_layers": ["#, #""alt_mixer_layers": [-1,"#),
    (#""alt_mixer_2_layers": ["#, #""alt_mixer_2_layers": [1,"#),
    (#""expand_proj": 4"#, #""expand_proj": -4"#),
    (#""use_bias": true"#, #""use_bias": false"#),
    (#""input_dim": 8"#, #""input_dim": 4"#),
    (#""window_size": 10"#, #""window_size": -2"#),
    (#""num_heads": 4"#, #""num_heads": 3"#),
  ])
  func `What is not computed is refused by its key`(old: String, new: String) throws {
    let key = try #require(old.split(separator: "\"").first)
    let message = try error(old, new)
    #expect(message.contains("config.json") && message.contains(key), "\(message)")
  }

  @Test func `Other mixers are refused by their names`() throws {
    for (kind, other) in [
      ("BaseConv", "Hyena"), ("LinearAttention", "Hedgehog"), ("SlidingAttention", "MHA"),
    ] {
      let message = try error(".\(kind)\"", ".\(other)\"")
      #expect(message.contains("\"\(other)\" is not supported"), "\(message)")
    }
    #expect(try error("TaylorExp", "Exp").contains("only TaylorExp"))
    #expect(try error(#""feature_dim": 8"#, #""feature_dim": 65"#).contains("input_dim"))
  }

  @Test func `What does not fit is refused with the folder's names`() throws {
    for (old, new, name) in [
      (#""expand_proj": 4"#, #""expand_proj": 2"#, "mixer.conv.conv.weight"),
      (#""n_inner": 64"#, #""n_inner": 32"#, "mlp.fc1.weight"),
      (#""num_heads": 4"#, #""num_heads": 2"#, "mixer.proj_q.weight"),
    ] {
      let message = try error(old, new)
      #expect(message.contains("layers.") && message.contains(name), "\(message)")
    }
  }
}
