public import ArgumentParser
public import BlockIO
import Glibc
public import TensorBasics

extension ByteCount: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

extension StorageBackend: ExpressibleByArgument {}

/// Runs a command's work; an error becomes one line on standard error and the exit code it stands for.
public func reportingErrors(_ work: () throws -> Void) throws {
  do { try work() } catch let code as ExitCode { throw code } catch {
    // What files and templates say is not to move the cursor.
    Terminal.note("error: " + "\(error)".escapingControlCharacters)
    throw ExitStatus(error).code
  }
}

/// Seconds since this process was started.
public func secondsSinceProcessStart() -> Double {
  guard let file = fopen("/proc/self/stat", "re") else { return 0 }
  defer { fclose(file) }
  var line = [UInt8](repeating: 0, count: 2048)
  let count = fread(&line, 1, line.count, file)
  // The second field is the program's name in parentheses and may hold spaces.
  let text = String(decoding: line[..<count], as: UTF8.self)
  guard let nameEnd = text.lastIndex(of: ")") else { return 0 }
  let fields = text[nameEnd...].split(separator: " ")
  guard fields.count > 20, let startTicks = Double(fields[20]) else { return 0 }
  var now = timespec()
  clock_gettime(CLOCK_BOOTTIME, &now)
  return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    - startTicks / Double(sysconf(Int32(_SC_CLK_TCK)))
}
