import Glibc
import ModelFormat
import TestSupport
import Testing

/// Longer contexts by YaRN and longrope, as transformers and llama.cpp compute them.
@Suite struct RopeScalingTests {
  /// transformers' `_compute_yarn_parameters` in f64: base frequency ÷ scaled frequency of each pair.
  private func yarn(
    base: Double, dimension: Int, factor: Double, original: Double, fast: Double = 32,
    slow: Double = 1, truncates: Bool = true
  ) -> [Double] {
    func correction(_ rotations: Double) -> Double {
      Double(dimension) * log(original / (rotations * 2 * .pi)) / (2 * log(base))
    }
    var (low, high) = (correction(fast), correction(slow))
    if truncates { (low, high) = (floor(low), ceil(high)) }
    low = max(low, 0)
    high = min(high, Double(dimension - 1))
    if low == high { high += 0.001 }
    return (0..<dimension / 2).map { pair in
      let ramp = min(max((Double(pair) - low) / (high - low), 0), 1)
      let frequency = pow(base, -2 * Double(pair) / Double(dimension))
      let extrapolation = 1 - ramp
      let scaled = frequency / factor * (1 - extrapolation) + frequency * extrapolation
      return frequency / scaled
    }
  }

  private func expectNear(_ found: [Float], _ expected: [Double]) {
    #expect(found.count == expected.count)
    for (pair, (found, expected)) in zip(found, expected).enumerated() {
      #expect((Double(found) / expected - 1).magnitude < 1e-6, "pair \(pair)")
    }
  }

  private func factors(_ name: String, _ model: ModelDescription) -> [Float] {
    if case .values(let values) = model.derivations[name] { values } else { [] }
  }

  private func folder(_ scaling: String, more: String = "") throws(FormatError) -> ModelDescription
  {
    var folder = TinyFolder()
    folder.more = #""rope_theta":10000.0,\#(more)"rope_scaling":{\#(scaling)}"#
    return try folder.describe()
  }

  private func error(_ scaling: String, more: String = "") -> String {
    do throws(FormatError) {
      _ = try folder(scaling, more: more)
      return "described"
    } catch { return error.description }
  }

  @Test func `YaRN's frequencies are those of transformers`() throws {
    let original = #""original_max_position_embeddings":128"#
    let cases: [(json: String, factors: [Double], magnitude: Double)] = [
      (
        #""type":"yarn","factor":4.0,\#(original)"#,
        yarn(base: 10000, dimension: 16, factor: 4, original: 128), 0.1 * log(4.0) + 1
      ),
      (
        #""rope_type":"yarn","factor":32,\#(original),"beta_fast":8,"beta_slow":0.5,"truncate":false"#,
        yarn(
          base: 10000, dimension: 16, factor: 32, original: 128, fast: 8, slow: 0.5,
          truncates: false), 0.1 * log(32.0) + 1
      ),
      (
        #""type":"yarn","factor":40,\#(original),"mscale":0.707,"mscale_all_dim":0.5"#,
        yarn(base: 10000, dimension: 16, factor: 40, original: 128),
        (0.0707 * log(40.0) + 1) / (0.05 * log(40.0) + 1)
      ),
      (
        #""type":"yarn","factor":2,\#(original),"attention_factor":1.25,"mscale":1.0"#,
        yarn(base: 10000, dimension: 16, factor: 2, original: 128), 1.25
      ),
      // Without the original context, what the whole file states.
      (
        #""type":"yarn","factor":2"#, yarn(base: 10000, dimension: 16, factor: 2, original: 512),
        0.1 * log(2.0) + 1
      ),
    ]
    for (json, expected, magnitude) in cases {
      let model = try folder(json)
      expectNear(factors("rope_freqs.weight", model), expected)
      #expect(model.configuration?.ropeMagnitude == Float(magnitude), "\(json)")
      #expect(model.configuration?.ropeLinearScale == 1)
    }
  }

  @Test func `llama.cpp's keys of YaRN say the same`() throws {
    var file = TinyModel(architecture: "qwen3").gguf(seed: 5)
    file["qwen3.rope.scaling.type"] = .string("yarn")
    file["qwen3.rope.scaling.factor"] = .float32(4)
    file["qwen3.rope.scaling.original_context_length"] = .uint32(128)
    let model = try ImageBuilder.description(of: file.bytes())
    let base = try #require(model.configuration?.ropeBase)
    expectNear(
      factors("rope_freqs.weight", model),
      yarn(base: base, dimension: 16, factor: 4, original: 128))
    #expect(model.configuration?.ropeMagnitude == Float(0.1 * log(4.0) + 1))
    #expect(!model.storedTensors.contains { $0.name == "rope_freqs.weight" })
    file["qwen3.rope.scaling.attn_factor"] = .float32(0.5)
    file["qwen3.rope.scaling.yarn_beta_fast"] = .float32(16)
    file["qwen3.rope.scaling.yarn_beta_slow"] = .float32(2)
    let other = try ImageBuilder.description(of: file.bytes())
    expectNear(
      factors("rope_freqs.weight", other),
      yarn(base: base, dimension: 16, factor: 4, original: 128, fast: 16, slow: 2))
    #expect(other.configuration?.ropeMagnitude == Float(0.5 * (0.1 * log(4.0) + 1)))
    file["qwen3.rope.scaling.attn_factor"] = nil
    file["qwen3.rope.scaling.yarn_attn_factor"] = .float32(1.25)
    let stated = try ImageBuilder.description(of: file.bytes())
    #expect(stated.configuration?.ropeMagnitude == 1.25)
    file["qwen3.rope.scaling.yarn_ext_factor"] = .float32(0.5)
    #expect(throws: FormatError.self) { try ImageBuilder.description(of: file.bytes()) }
    file["qwen3.rope.scaling.yarn_ext_factor"] = nil
    file["qwen3.rope.scaling.factor"] = .float32(0.5)
    #expect {
      try ImageBuilder.description(of: file.bytes())
    } throws: { "\($0)".contains("YaRN's factor is 0.5") }
    file["qwen3.rope.scaling.factor"] = .float32(4)
    file["qwen3.rope.scaling.type"] = .string("longrope")
    #expect(throws: FormatError.self) { try ImageBuilder.description(of: file.bytes()) }
  }

  /// Configurations of fine-tunes that keep the block and scale nothing.
  @Test(arguments: [
    #""type":"linear","factor":1.0"#, #""type":"yarn","factor":1.0"#,
    #""type":"dynamic","factor":1.0"#, #""rope_type":"default","factor":8.0"#,
    #""type":"llama3","factor":1.0,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64"#,
  ])
  func `A factor of one scales nothing`(scaling: String) throws {
    let model = try folder(scaling)
    #expect(model.derivations.isEmpty)
    #expect(model.configuration == (try TinyFolder().configuration()))
  }

  @Test func `In GGUF files a factor of one scales nothing, of whatever type`() throws {
    let plain = TinyModel().gguf(seed: 5)
    let expected = try ImageBuilder.description(of: plain.bytes()).configuration
    for type in ["linear", "yarn", "longrope", "none"] {
      var file = plain
      file["llama.rope.scaling.type"] = .string(type)
      file["llama.rope.scaling.factor"] = .float32(1)
      let model = try ImageBuilder.description(of: file.bytes())
      #expect(model.derivations.isEmpty && model.configuration == expected, "\(type)")
    }
  }

  @Test func `longrope has a set of factors for short contexts and one for long ones`() throws {
    let short = (1...8).map { "\($0)" }.joined(separator: ",")
    let long = (11...18).map { "\($0)" }.joined(separator: ",")
    let model = try folder(
      #""type":"longrope","short_factor":[\#(short)],"long_factor":[\#(long)]"#,
      more: #""original_max_position_embeddings":64,"#)
    let configuration = try #require(model.configuration)
    #expect(factors("rope_factors_short.weight", model) == (1...8).map(Float.init))
    #expect(factors("rope_factors_long.weight", model) == (11...18).map(Float.init))
    #expect(configuration.shortContextLength == 64)
    #expect(configuration.ropeFactorsName(contextLength: 64) == "rope_factors_short.weight")
    #expect(configuration.ropeFactorsName(contextLength: 65) == "rope_factors_long.weight")
    // 512 positions after 64.
    #expect(configuration.ropeMagnitude == Float((1 + log(8.0) / log(64.0)).squareRoot()))
  }

  @Test func `What a scaling lacks is named`() {
    let cases = [
      (#""type":"yarn","factor":0"#, "no positive \"factor\""),
      (#""type":"yarn","factor":0.5"#, "YaRN's factor is 0.5"),
      (#""type":"yarn","factor":"4""#, "\"factor\" should be a number"),
      (#""type":"longrope","short_factor":[1,2],"long_factor":[1,2]"#, "short_factor should be 8"),
      (#""type":"longrope","short_factor":[1,1,1,1,1,1,1,0]"#, "short_factor should be 8"),
      (#""type":"dynamic","factor":2"#, "RoPE scaling \"dynamic\" is not supported"),
      (#""type":1"#, "not an object with a \"rope_type\""),
      (#""type":"yarn","factor":4,"partial_rotary_factor":0.5"#, "partial_rotary_factor: 0.5"),
    ]
    for (scaling, words) in cases {
      let message = error(scaling)
      #expect(message.contains(words), "\(message)")
    }
  }

  @Test(arguments: [
    (#""rope_scaling":"yarn""#, "not an object"), (#""rope_scaling":[]"#, "not an object"),
    (#""head_dim":9223372036854775807"#, "head_dim"),
  ])
  func `What is no scaling, and heads that no model has, are refused`(
    stated: String, words: String
  ) {
    var folder = TinyFolder()
    folder.more = stated
    do throws(FormatError) {
      _ = try folder.describe()
      Issue.record("described")
    } catch { #expect(error.description.contains(words), "\(error)") }
  }
}
