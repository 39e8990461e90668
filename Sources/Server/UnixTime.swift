import Glibc

/// Seconds since 1970.
func secondsSince1970() -> Int { time(nil) }

/// A time as RFC 3339 writes it.
func utcText(ofSeconds seconds: Int) -> String {
  var (seconds, parts) = (time_t(seconds), tm())
  gmtime_r(&seconds, &parts)
  func digits(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
  return "\(1900 + parts.tm_year)-\(digits(parts.tm_mon + 1))-\(digits(parts.tm_mday))T"
    + "\(digits(parts.tm_hour)):\(digits(parts.tm_min)):\(digits(parts.tm_sec))Z"
}
