import ModelFormat
import TestSupport
import Testing
import WeightLoader

/// Folders of gated linear attention whose configuration is another one.
@Suite struct GatedLinearTests {
  private func error(_ edit: (inout EditedFolder) throws -> Void) throws -> String {
    var folder = try EditedFolder("gla")
    try edit(&folder)
    let written = folder.write()
    do throws(LoaderError) {
      _ = try ModelSource.open(written.path)
      return "opened"
    } catch { return error.description }
  }

  private func error(_ old: String, _ new: String) throws -> String {
    try error { folder in
      #expect(folder.config.contains(old), "\(old)")
      folder.config = folder.config.replacing(old, with: new)
    }
  }

  @Test(arguments: [
    (#""use_gk": true"#, #""use_gk": false"#), (#""use_gv": false"#, #""use_gv": true"#),
    (#""use_output_gate": true"#, #""use_output_gate": false"#),
    (#""elementwise_affine": true"#, #""elementwise_affine": false"#),
    (#""use_short_conv": false"#, #""use_short_conv": true"#),
    (#""feature_map": null"#, #""feature_map": "relu""#),
    (#""clamp_min": null"#, #""clamp_min": -3.0"#),
    (#""attn": null"#, #""attn": {"layers": [1], "num_heads": 2}"#),
    (#""attnres_block_size": null"#, #""attnres_block_size": 4"#),
    (#""hidden_act": "swish""#, #""hidden_act": "powlu""#),
    (#""num_kv_heads": null"#, #""num_kv_heads": 1"#),
    (#""use_cache": true"#, #""gate_logit_normalizer": 8"#),
    (#""use_cache": true"#, #""gate_low_rank_dim": 32"#),
    (#""expand_k": 0.75"#, #""expand_k": 0.7"#), (#""expand_k": 0.75"#, #""expand_k": 1e300"#),
    (#""expand_v": 2.0"#, #""expand_v": -2.0"#), (#""expand_v": 2.0"#, #""expand_v": "2""#),
    (#""num_heads": 2"#, #""num_heads": 0"#), (#""num_heads": 2"#, #""num_heads": 1048576"#),
    (#""hidden_size": 32"#, #""hidden_size": 4611686018427387904"#),
    (#""hidden_size": 32"#, #""hidden_size": 0"#),
  ])
  func `What is not computed is refused by its key`(old: String, new: String) throws {
    let key = try #require(new.split(separator: "\"").first)
    let message = try error(old, new)
    #expect(message.contains("config.json") && message.contains(key), "\(message)")
  }

  @Test func `What does not fit is refused with the folder's names`() throws {
    for (key, stated, tensor) in [
      (#""num_heads": 2"#, #""num_heads": 4"#, "g_norm_swish_gate.weight"),
      (#""expand_k": 0.75"#, #""expand_k": 0.5"#, "gk_proj.1.weight"),
      (#""intermediate_size": 64"#, #""intermediate_size": 96"#, "gate_proj.weight"),
      (#""intermediate_size": 64"#, #""intermediate_size": null"#, "gate_proj.weight"),
    ] {
      let message = try error(key, stated)
      #expect(message.contains("model.layers.0.") && message.contains(tensor), "\(message)")
    }
    for name in ["gk_proj.0.weight", "gk_proj.1.weight", "gk_proj.1.bias", "g_proj.weight"] {
      let message = try error { folder in
        _ = try folder.take("model.layers.1.attn.\(name)")
      }
      #expect(message.contains("model.layers.1.attn.\(name)"), "\(message)")
    }
    let message = try error { folder in
      folder.tensors["model.layers.0.attn.gk_proj.1.weight"]?.shape = [16, 24]
    }
    #expect(message.contains("attn.gk_proj.1.weight\" has 24 columns, not 16"), "\(message)")
  }

  @Test func `Widths that are not stated follow from the model's`() throws {
    let source = try ModelSource.describe(VectorModel.folder("gla"))
    let scan = try #require(source.configuration?.scans.first)
    #expect(scan.keyLength == 12 && scan.valueLength == 32 && scan.keyHeadCount == 2)
    // 32 · 4 · 2 / 3, in multiples of 256.
    let message = try error(#""intermediate_size": 64"#, #""intermediate_size": null"#)
    #expect(message.contains("256"), "\(message)")
  }
}
