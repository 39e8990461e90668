import Foundation
import NIOCore
import Server
import TestSupport
import Testing

/// Requests that are made to take memory, against a process with a budget.
@Suite(
  .enabled(if: ServerProgram.isBuilt, "flashinfer-serve is not built beside the tests"))
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

  @Test func `Grammars, half-sent bodies and calls that never begin keep to the budget`()
    async throws
  {
    let budget = 192
    let program = try ServerProgram([
      "--ram", "\(budget)MiB", "--context", "1024", "--sequences", "4", "--queue", "20",
      "--no-kv-store",
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
}
