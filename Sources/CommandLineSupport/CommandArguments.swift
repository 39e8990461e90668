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

  /// What may help where `arguments` were refused with `message`; nil where nothing is known.
  static func hint(for message: String, _ arguments: [String]) -> String? {
    if message.contains("Unknown option '") || message.contains("Invalid option: -") {
      return "what begins with a dash and is no option goes behind --, as in -- '-1 + 1 ='; "
        + "a prompt can also come from --prompt-file, or with --prompt-file - from standard input"
    }
    let dashes = zip(arguments, arguments.dropFirst()).contains {
      $0.hasPrefix("--") && $1.hasPrefix("-")
    }
    guard dashes, message.contains("Missing value for '") else { return nil }
    return "a value that begins with a dash goes behind an equals sign, as in --system='- be brief'"
  }
}

extension ParsableCommand {
  /// Runs the command on the process's arguments, byte for byte; what is wrong with them becomes usage,
  /// an exit code and, where there is one, a hint.
  public static func runAsProgram() {
    // A file longer than the user's limit is an error like a full drive, not an end.
    signal(SIGXFSZ, SIG_IGN)
    let arguments = CommandArguments.all
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
