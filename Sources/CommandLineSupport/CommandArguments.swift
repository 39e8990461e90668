public import ArgumentParser
import Glibc
import TensorBasics

/// The process's arguments as the system handed them over.
public enum CommandArguments {
  /// All arguments after the program's name; bytes that are not UTF-8 survive (`SystemPath.swift`).
  public static var all: [String] {
    (0..<Int(CommandLine.argc)).dropFirst().compactMap { index in
      CommandLine.unsafeArgv[index].map { String(systemPath: $0) }
    }
  }

  private static let promptHint =
    "what begins with a dash and is no option goes after --, as in -- '-1 + 1 ='; "
    + "a prompt can also come from --prompt-file, or with --prompt-file - from standard input"
  private static let valueHint =
    "a value that begins with a dash goes after an equals sign, as in --system='- be brief'"

  /// What may help where `arguments` were refused with `message`; nil if nothing is known.
  static func hint(for message: String, _ arguments: [String]) -> String? {
    if message.contains("Unknown option '") || message.contains("Invalid option: -") {
      return promptHint
    }
    let dashes = zip(arguments, arguments.dropFirst()).contains {
      $0.hasPrefix("--") && $1.hasPrefix("-")
    }
    return dashes && message.contains("Missing value for '") ? valueHint : nil
  }

  /// Refuses what would be read as a bundle of short options with `-h` among them, and so print the help and
  /// end well: `-h`, the only short option there is, stands alone.
  static func refusal(of arguments: [String]) -> String? {
    let bundle = arguments.prefix { $0 != "--" }.first {
      $0.hasPrefix("-") && !$0.hasPrefix("--") && $0 != "-h" && $0.contains("h")
    }
    return bundle.map { "Error: Unknown option '\($0)'\nHint: \(promptHint); \(valueHint)." }
  }
}

extension ParsableCommand {
  /// Runs the command on the process's arguments, byte for byte; what is wrong with them becomes usage,
  /// an exit code and, if there is one, a hint.
  public static func runAsProgram() {
    // A file longer than the user's limit is an error like a full drive, not an end.
    signal(SIGXFSZ, SIG_IGN)
    let arguments = CommandArguments.all
    if let refusal = CommandArguments.refusal(of: arguments) {
      Terminal.note(refusal)
      Terminal.exit(.usage)
    }
    do {
      var command = try parseAsRoot(arguments)
      try command.run()
    } catch {
      let message = fullMessage(for: error)
      guard exitCode(for: error) == .validationFailure,
        let hint = CommandArguments.hint(for: message, arguments)
      else { exit(withError: error) }
      Terminal.note("\(message)\nHint: \(hint).")
      Terminal.exit(.usage)
    }
  }
}
