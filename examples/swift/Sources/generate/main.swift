import Runtime

let model = try LanguageModel.open(CommandLine.arguments[1])
let prompt = try model.prompt("The capital of France is")
let session = try Session(
  model.source, model.configuration,
  MemoryPlan.Request(
    budgetByteCount: 400 << 20, contextLength: prompt.count + 16, promptLength: prompt.count,
    threadCount: 2))

let options = GenerationOptions(
  prompt: prompt, maximumTokenCount: 16, sampling: SamplingOptions(temperature: 0))
let result = try TextGenerator(session: session, tokenizer: model.tokenizer).generate(options) {
  text in print(String(decoding: text, as: UTF8.self), terminator: "")
}
print()
let byteCount = session.plan.residency.streamedByteCount
print(result.tokens.count, "tokens,", byteCount, "bytes read for each")
