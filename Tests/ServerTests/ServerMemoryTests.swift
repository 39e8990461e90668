import Foundation
import NIOCore
import Runtime
import Server
import TestSupport
import Testing

/// Requests that are made to take memory, against a process with a budget.
@Suite(
  .serialized, .enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests")
)
struct ServerMemoryTests {
  private static let length = 128 << 10

  /// Grammars that are dear to compile, to follow, or to keep: fields of a request.
  private static var grammars: [String] {
    func gbnf(_ text: String) -> String { "\"grammar\":\"\(text)\"" }
    let nested = #"{\"type\":\"string\",\"pattern\":\"^(a|b)*a(a|b){12}$\"}"#
    let branch = #"{"anyOf":[{"minimum":1},{"maximum":2},{"type":"null"}]}"#
    let branches = String(repeating: branch + ",", count: 8) + branch
    return [
      gbnf(#"root ::= (\"ab\" [^x]){30000}"#),
      gbnf(#"root ::= ((\"ab\" [^x]){9999}){9999}"#),
      gbnf(#"root ::= (\"a\" | \"aa\" | \"aaa\")* (\"a\" | \"aa\")* \"b\""#),
      gbnf(#"root ::= s s s s s s s s\ns ::= (\"a\" | \"(\" s \")\")*"#),
      gbnf(#"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"a\" root root | \"d\""#),
      gbnf("root ::= " + String(repeating: #"\"a\" | "#, count: 9000) + #"\"b\""#),
      #""json_schema":\#(nested.replacingOccurrences(of: "\\\"", with: "\""))"#,
      #""json_schema":{"allOf":[\#(branches)]}"#,
      #""structured_outputs":{"regex":"(a{900}b?){90}"}"#,
    ]
  }

  /// The one is more than a server needs, the other hardly enough for any.
  @Test(arguments: [192, 64])
  func `Grammars, half-sent bodies and calls that never begin keep to the budget`(
    budget: Int
  ) async throws {
    let program = try ServerProgram([
      "--ram", "\(budget)MiB", "--context", "1024", "--sequences", "4", "--queue", "20",
      "--no-kv-store", "--max-body", "128KiB",
    ])
    let port = program.port
    let half = String(
      HTTPClient.request(
        "/v1/completions", "{\"prompt\":\"\(String(repeating: "x", count: Self.length - 20))\"}"
      ).dropLast(100))
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<7 {
        group.addTask {
          // Until the test is over.
          try await HTTPClient.leave(after: half, port) { $0.isEmpty ? Task.isCancelled : true }
        }
      }
      try await withThrowingTaskGroup(of: (Int, String).self) { requests in
        for _ in 0..<3 {
          for grammar in Self.grammars {
            requests.addTask {
              let body = "{\"prompt\":\"the\",\"max_tokens\":300,\"temperature\":0,\(grammar)}"
              return (try await HTTPClient.post("/v1/completions", body, port).status, grammar)
            }
          }
          // What may be a call of a tool is held back.
          requests.addTask {
            let tool = #"{"type":"function","function":{"name":"f","parameters":{}}}"#
            let body =
              #"{"messages":[{"role":"user","content":"a"}],"tools":[\#(tool)],"max_tokens":900,"#
              + #""grammar":"root ::= \"{\" \" \"+"}"#
            return (try await HTTPClient.post("/v1/chat/completions", body, port).status, body)
          }
        }
        for try await (status, grammar) in requests {
          #expect([200, 400, 429, 503].contains(status), "\(status): \(grammar.prefix(100))")
        }
      }
      group.cancelAll()
    }
    #expect(try await HTTPClient.post("/v1/completions", #"{"prompt":"a"}"#, port).status == 200)
    let peak = try program.peakKibibytes
    #expect(peak <= budget << 10, "\(peak) KiB")
  }

  @Test func `The least budget that is named works, and a plan says what is in it`() throws {
    let refused = try ServerProgram.run([Self.model.path, "--no-kv-store", "--ram", "8MiB"])
    #expect(refused.status == 69, "\(refused.text)")
    let numbers = refused.text.split(separator: " ").compactMap { Double($0) }
    let least = try #require(numbers.last, "\(refused.text)")
    #expect(least <= 64, "\(refused.text)")
    let arguments = [Self.model.path, "--no-kv-store", "--plan", "--ram"]
    let plan = try ServerProgram.run(arguments + ["\(least)MiB"])
    #expect(
      plan.status == 0 && plan.text.contains("server: 256 connections: 8.5 MiB\n"), "\(plan.text)")
    #expect(!plan.text.contains("listening"))
    let large = try ServerProgram.run(arguments + ["1GiB"])
    #expect(large.text.contains("server: 1024 connections: 34 MiB\n"), "\(large.text)")
    let chosen = try ServerProgram.run(
      arguments + ["1GiB", "--connections", "64", "--keep-responses", "1MiB"])
    #expect(chosen.text.contains("server: 64 connections: 2."), "\(chosen.text)")
    #expect(chosen.text.contains("server: responses that are kept: 1 MiB\n"), "\(chosen.text)")
  }

  private static let model = TemporaryFile(ServerRig.modelBytes)

  @Test func `Answers that nobody reads have bounded memory, and others are answered`() async throws
  {
    try await ServerRig.serving(contextLength: 4096) {
      $0.answerByteCount = 256 << 10
    } _: { rig in
      let endless = HTTPClient.request(
        "/v1/completions",
        #"{"prompt":"the","max_tokens":4000,"ignore_eos":true,"stream":true,"logprobs":20,"n":2}"#)
      try await HTTPClient.connected(rig.port, receiveByteCount: 4096) { inbound, outbound in
        try await outbound.write(ByteBuffer(string: endless))
        var iterator = inbound.makeAsyncIterator()
        _ = try await iterator.next()
        // Its answers end before they are complete.
        try await rig.wait { $0.openCount == 0 }
        let other = try await rig.post(
          "/v1/completions", #"{"prompt":"the","max_tokens":20,"ignore_eos":true,"logprobs":5}"#)
        #expect(other.status == 200, "\(other.text)")
        var rest: [UInt8] = []
        while let part = try await iterator.next() { rest += part.readableBytesView }
        #expect(String(decoding: rest, as: UTF8.self).contains("answer_memory_full"))
      }
      let whole = try await rig.post(
        "/v1/completions",
        #"{"prompt":"the","max_tokens":400,"ignore_eos":true,"logprobs":20}"#)
      #expect(whole.status == 503 && whole.text.contains("answer_memory_full"), "\(whole.text)")
    }
  }

  @Test func `Grammars that need more memory than there is for them are refused`() async throws {
    for (byteCount, status) in [(56 << 20, 200), (4 << 20, 400)] {
      try await ServerRig.serving {
        $0.grammarByteCount = byteCount
      } _: { rig in
        let words = (0..<4000).map { #"\"\#($0)\" | "# }.joined()
        let grammar = "root ::= \(words)\\\"x\\\""
        let reply = try await rig.post(
          "/v1/completions", "{\"prompt\":\"the\",\"max_tokens\":3,\"grammar\":\"\(grammar)\"}")
        #expect(reply.status == status, "\(reply.text)")
        #expect(status == 200 || reply.text.contains("edges"), "\(reply.text)")
      }
    }
  }
}
